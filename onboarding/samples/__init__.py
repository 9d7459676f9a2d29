"""Small data sets cut from large ones."""
