"""Tracks: raw files made into verified 48 kHz tracks, and the prompts that describe them."""
