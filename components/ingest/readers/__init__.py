"""Readers: one module for each format of `ingest.format`, which yields the parts of a source (parts.py)."""
