"""Sections of `python -m benchmarks gpu`: each is a generator of rows, run in a process of its own."""
