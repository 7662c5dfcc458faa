"""Pre-training of a backbone, as an image classifier or without labels."""
