"""Commands that run, submit and follow pipelines."""
