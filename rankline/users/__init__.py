"""Ids of users: hashed with a key, and the list of users that were erased."""
