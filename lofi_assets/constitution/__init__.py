"""The constitution: gates as data, verdicts on what was measured, their words, the audit of the repository."""
