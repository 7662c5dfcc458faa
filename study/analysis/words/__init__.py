"""Numbers and verdicts in sentences. Nothing is decided here."""
