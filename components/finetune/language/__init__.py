"""The encoder as a language model."""
