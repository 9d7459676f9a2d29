"""The model registry: an append-only event log over immutable bundles."""
