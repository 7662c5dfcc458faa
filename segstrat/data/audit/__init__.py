"""Checks of a protocol's data before anything trains on it; `python -m segstrat.data.audit`."""
