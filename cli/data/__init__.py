"""Commands for data, recipes and features."""
