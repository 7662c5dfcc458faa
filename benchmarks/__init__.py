"""Paired timings of segstrat against the usual alternatives: `uv run python -m benchmarks`."""
