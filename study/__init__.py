"""The study: the Ray side, and the analysis of what it leaves behind."""
