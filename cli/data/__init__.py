"""Commands about data, recipes and features."""
