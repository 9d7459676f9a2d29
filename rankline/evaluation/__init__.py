"""Metrics, intervals, the report, and the decision made from it."""
