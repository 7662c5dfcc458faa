"""Paired timings of segstrat against what a user would otherwise pick: `uv run python -m benchmarks`."""
