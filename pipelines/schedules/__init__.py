"""Schedules on this machine: firings, the daemon, backfill."""
