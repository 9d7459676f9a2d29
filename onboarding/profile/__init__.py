"""A source in numbers and plots."""
