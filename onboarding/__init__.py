"""From data you bring to a recipe: look at a source, infer what its columns mean, profile it, take a slice of it."""
