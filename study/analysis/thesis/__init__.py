"""The thesis's published numbers, claims C1–C5 and hypothesis H2, judged on the user's own trials."""
