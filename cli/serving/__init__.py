"""Commands that start and ask the server."""
