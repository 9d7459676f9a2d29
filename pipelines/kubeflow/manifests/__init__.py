"""Manifests for one namespace, filled in for a recipe from the templates beside this file."""
