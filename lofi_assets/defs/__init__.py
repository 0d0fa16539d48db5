"""Dagster's side of the project: assets in lineage order, their checks, automation, sensors, jobs, resources.

What belongs here: short functions. An asset reads where its inputs are, calls one domain function and reports; it knows
nothing of samples, tensors or files. What does not: anything that could run without Dagster.
"""
