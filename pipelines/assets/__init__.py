"""Data sets and model weights that recipes name, taken from packages or generated."""
