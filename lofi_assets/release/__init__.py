"""From tiers to a published model: the bundle, its card, publication.

What belongs here: which files leave the house, what the card says, where it goes. What does not: whether it may go,
which is the guard's (`defs/gates.py`).
"""
