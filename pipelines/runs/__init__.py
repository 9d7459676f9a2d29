"""Running a pipeline on this machine and watching it."""
