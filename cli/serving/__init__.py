"""Commands that start the server and send requests to it."""
