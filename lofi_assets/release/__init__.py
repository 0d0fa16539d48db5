"""From tiers to a published model: the bundle, its card, publication.

Whether a release may go is decided by the guard (`defs/gates.py`).
"""
