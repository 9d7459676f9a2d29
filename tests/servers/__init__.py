"""Real servers for tests: thrown away afterwards, on free ports of this machine."""
