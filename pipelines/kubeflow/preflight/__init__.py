"""What a cluster has for a recipe that is to be submitted, read from the Kubernetes API: nothing is changed.

`run` lists the checks; each module checks one thing. What this user may not read is reported as
not known, since the run itself has other rights.
"""
