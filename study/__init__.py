"""The study: running trials with Ray, and the analysis of their results."""
