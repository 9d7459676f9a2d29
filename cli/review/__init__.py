"""The commands of the review desk."""
