"""An answer as plain values: the content of verdict.json."""
