"""Pre-training of a backbone, as an image classifier or without labels, for weights that are not published."""
