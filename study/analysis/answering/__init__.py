"""The two stages: which cells screening nominates, and what each look at the answering seeds decides."""
