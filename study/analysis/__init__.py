"""From frames to effects, intervals, claims and one verdict. Imports neither torch nor Ray."""
