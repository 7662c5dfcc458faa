"""What a study remembers on disk: manifest, lock, trial states and the decisions of early stopping."""
