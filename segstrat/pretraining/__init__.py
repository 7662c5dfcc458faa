"""Pre-training of a backbone as an image classifier, for weights that are not published."""
