"""Runs on this machine: starting, watching, listing and planning them."""
