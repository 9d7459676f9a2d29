"""Erasing users from a workspace and its storages, and searching all of it for what is left."""
