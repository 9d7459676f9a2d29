"""Profile canonical tables: counts, distributions, times, labels and rejected rows, as numbers and as an HTML page."""
