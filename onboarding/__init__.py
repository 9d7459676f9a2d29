"""From files nobody has seen to a recipe."""
