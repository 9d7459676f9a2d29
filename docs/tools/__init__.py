"""The tools that build the documentation."""
