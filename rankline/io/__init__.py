"""Files, folders, buckets, databases: reading and writing them whole, and naming them by digest."""
