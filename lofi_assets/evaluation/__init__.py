"""Evaluation: checkpoints made to sound, measured, and listened to blind."""
