"""The sequence teacher, which ranks by users' histories."""
