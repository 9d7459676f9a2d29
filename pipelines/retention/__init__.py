"""What takes up space in a workspace, what of it is kept, and the removal of the rest."""
