"""The networks, the bundle that is served, and the catalogue that it serves over."""
