"""Draws what the analysis computed: figures and the report page. Imports neither torch nor Ray."""
