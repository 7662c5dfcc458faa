"""Work, bytes and lines that must not grow with the number of trials, or not faster than it."""
