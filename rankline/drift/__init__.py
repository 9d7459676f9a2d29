"""Whether what is live differs from what a model learned from, at a stated rate of false alarms."""
