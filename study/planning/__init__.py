"""From a search space to planned trials: which training runs a study has. Imports neither torch nor Ray."""
