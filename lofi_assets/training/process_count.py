"""How many processes train together where the settings leave it to the machine."""

import os

AUTO = "auto"


def counted(processes: object, *, device: str) -> object:
    """The number that `auto` stands for on this machine; anything else as it is.

    As many as a launcher started (WORLD_SIZE); else one for each visible GPU; 1 on the CPU and on a GPU that is named.

    Args:
        device: of the run: `auto`, `cpu`, `cuda`, `cuda:1`.
    """
    if processes != AUTO:
        return processes
    started = os.environ.get("WORLD_SIZE", "")
    if started.isascii() and started.isdigit():
        return int(started)
    if device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())
