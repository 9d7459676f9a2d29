"""Commands about this machine, images, disk space and new projects."""
