"""Factorial effects and response surfaces: what each factor does, averaged over the others."""
