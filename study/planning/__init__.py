"""From a search space to planned trials: which training runs a study holds. Knows neither torch nor Ray."""
