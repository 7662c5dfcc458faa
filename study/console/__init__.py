"""What a running study shows: tables, progress, estimates of the time left, TensorBoard curves."""
