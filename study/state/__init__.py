"""What a study stores: manifest, lock, trial states and the decisions of early stopping."""
