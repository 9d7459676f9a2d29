"""The checks of `rankline doctor`: one module per subject, one function per check, one finding per line.

`model` defines what a check takes and returns; `run` lists the subjects and runs their checks.
"""
