"""How generated music is measured: distances between sets, alignment with prompts, style coverage, listening tests.

Here: numpy float64 statistics that know nothing of assets, and the encoders they read audio through. Not here: limits
and verdicts (`lofi_assets.constitution.gates`), where results are kept (`lofi_assets.store`), and anything of Dagster.
A number that cannot be trusted is None with a reason, never a value that could pass a gate.
"""
