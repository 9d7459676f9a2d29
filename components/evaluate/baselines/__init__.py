"""Baselines that a model has to beat; each learns from training alone, and knows of a request what was known then."""
