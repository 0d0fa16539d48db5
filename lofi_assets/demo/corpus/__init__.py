"""Lofi tracks that the project synthesises itself, with licence records and planted faults (`lofi demo-corpus`).

Nothing here is needed to process real tracks.
"""
