"""Survey a source: find its tables, sample their first rows into DuckDB, and compute statistics of each column.

A table is a file, a set of files whose names differ by a number, a folder of files, or a table of a database. The
survey reads through ingest's own readers, so it sees the values that ingest will see. It does not say what they mean.
"""
