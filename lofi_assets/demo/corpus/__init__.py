"""Lofi tracks that the project synthesises itself, with licence records and planted faults.

Belongs here: the instruments, the songs, and what is written under a data root by `lofi demo-corpus`. Does not belong
here: anything that the pipeline needs to process real tracks.
"""
