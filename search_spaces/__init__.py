"""Search spaces, one file each: docstring (question, command, cost), BASE, SPACE."""
