"""Checks: what could make the number meaningless, each with an id, a verdict and a sentence."""
