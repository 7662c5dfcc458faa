"""Where the next trial comes from: a fixed plan, or Optuna."""
