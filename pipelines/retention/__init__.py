"""What takes room, what is kept, and removing the rest."""
