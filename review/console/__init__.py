"""The console: the review desk as web pages, for a browser with or without a mouse and for scripts."""
