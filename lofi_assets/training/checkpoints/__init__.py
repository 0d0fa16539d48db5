"""Checkpoints on disk: manifest, files, soundness, provenance, and the state that a run goes on from."""
