"""Lofi tracks that the project synthesises itself, with licence records and planted faults.

Belongs here: the songs, and what is written under a data root by `lofi demo-corpus`. Does not belong here: how they are
played (`audio/synth/`), and anything that the pipeline needs to process real tracks.
"""
