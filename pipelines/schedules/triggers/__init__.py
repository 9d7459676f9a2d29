"""Firings by need: what a schedule watches beside the clock, and when it starts a run because of it."""
