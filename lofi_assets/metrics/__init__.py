"""How generated music is measured: distances between sets, alignment with prompts, style coverage, listening tests.

What belongs here: numpy float64 statistics that know nothing of assets, and the encoders they read audio through. What
does not: measures of one track (`audio/`), limits and verdicts (`constitution/gates.py`). A number that cannot be
trusted is None with a reason, never a value that could pass a gate.
"""
