"""What each part of a recipe adds: its run with one part changed at a time, over several seeds."""
