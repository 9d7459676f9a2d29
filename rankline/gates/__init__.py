"""What a promotion must prove, by which statistics, over one night and over a year."""
