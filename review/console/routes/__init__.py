"""The pages and the actions of the console, by subject."""
