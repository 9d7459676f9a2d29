"""What a schedule means, on this machine and on a cluster: its fire times, and the data window of each."""
