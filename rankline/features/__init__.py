"""Features: the same code in training, evaluation and serving."""
