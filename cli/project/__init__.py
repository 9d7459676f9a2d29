"""Commands for this machine, disk space, images and new projects."""
