"""Features of a request, read from Feast's online store."""
