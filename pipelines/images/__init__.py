"""Building the images of the steps."""
