"""The study's main program: prepares, runs, refreshes and ends it."""
