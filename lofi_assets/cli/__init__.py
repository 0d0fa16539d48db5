"""Command groups of `lofi`, one file per stage of the lineage; `main.py` lists them.

What belongs here: arguments, output, exit codes. What does not: the work, which is in the module of the stage, and
turning errors into messages, which `main.Explaining` does for all of them.
"""
