"""What runs around a step's work: its run, ledger, cache, progress and signals."""
