"""How fast mel frames and latent frames follow each other. Imports without torch and without the models."""

MEL_RATE = 44100
"""Samples a second of what is turned into mel frames."""
HOP = 512
COMPRESSION = 8
"""Mel frames of a latent frame."""
SAMPLES_PER_FRAME = HOP * COMPRESSION
PART_FRAMES = 256
"""Latent frames of a part that is decoded at once, 23.8 s. Decoder and vocoder each take 26 MB for a second (counted):
0.7 GB for a part."""


def latent_frames(samples: int, *, sample_rate: int) -> int:
    """Latent frames that `samples` of audio fill entirely: 10.77 a second."""
    return samples * MEL_RATE // (sample_rate * SAMPLES_PER_FRAME)
