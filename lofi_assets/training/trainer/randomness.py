"""Where a run stands in its sequence of items, and what its random numbers follow from (constitution II).

What belongs here: the sampler's state in figures and words, as a checkpoint records it. What does not: the drawing
itself (`batches`). Imports without torch.
"""

from typing import Any

from lofi_assets.training.config import TrainingRun

RULE = (
    "Each random number of training is drawn from a torch CPU generator of its own, seeded with the sha256 of seed, "
    "purpose and position: the order of a pass from (seed, 'order', pass), and crop, condition dropout, timestep and "
    "noise of an item from (seed, 'item', position), the wording of its prompt from (seed, 'wording', position). The "
    "adapter starts from torch.manual_seed(seed), and the masks of lora_dropout from one seeded for each forward pass "
    "with (seed, 'dropout', position of its first item). The global generators of torch, NumPy and Python are not read "
    "otherwise, so they have no state worth keeping: the sampler goes on exactly from seed and next_position."
)


def randomness(run: TrainingRun, *, step: int) -> dict[str, Any]:
    """The state of sampler and random numbers after `step` optimiser steps; plain JSON data.

    `next_position` is the first item of the next step, counted from 0 over the whole run; `next_pass` and `next_place`
    are the same counted in passes over the training set, repeats included.
    """
    items_per_step = run.training.global_batch
    items_per_pass = sum(track.repeat for track in run.of_split("train"))
    next_pass, next_place = divmod(step * items_per_step, items_per_pass)
    return {
        "seed": run.training.seed,
        "step": step,
        "items_per_step": items_per_step,
        "items_per_pass": items_per_pass,
        "next_position": step * items_per_step,
        "next_pass": next_pass,
        "next_place": next_place,
        "rule": RULE,
    }
