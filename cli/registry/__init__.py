"""Commands for models, catalogues and items."""
