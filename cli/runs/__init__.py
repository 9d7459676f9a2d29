"""Commands that run pipelines, here or on a cluster."""
