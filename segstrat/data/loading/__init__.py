"""From samples to batches on the device: augmentation, reader threads, the device cache."""
