"""Torch tensors whose numbers lie in a file, so that a model larger than memory can be worked on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

SMALL: Final = 2**20
"""Bytes up to which a tensor stays in memory."""


def on_disk(tensor: Tensor, folder: Path) -> Tensor:
    """A tensor with the same numbers, in a file of the folder that has no name and goes when the tensor does.

    The room is taken before anything is written: a full disk is an error here, not the end of the process.
    """
    if tensor.nbytes <= SMALL:
        return tensor
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".mapped-") as file:
        os.posix_fallocate(file.fileno(), 0, tensor.nbytes)
        kept = torch.from_file(file.name, shared=True, size=tensor.numel(), dtype=tensor.dtype)
    return kept.view(tensor.shape).copy_(tensor)


def halve(module: nn.Module, *, kept_in_float: str, folder: Path | None) -> None:
    """`module.half()`, tensor by tensor, in place.

    Args:
        kept_in_float: how the names of modules end that compute in float32; their numbers are rounded all the same.
        folder: for files that hold the numbers; None keeps them in memory.
    """

    def halved(name: str, tensor: Tensor) -> Tensor:
        return tensor.half().float() if kept_in_float and name.endswith(kept_in_float) else tensor.half()

    _recast(module, halved, folder)


def widen(module: nn.Module, *, folder: Path) -> None:
    """`module.float()`, tensor by tensor, in place; what is in float32 stays where it is."""
    _recast(module, lambda _, tensor: tensor.float(), folder)


def _recast(module: nn.Module, change: Callable[[str, Tensor], Tensor], folder: Path | None) -> None:
    made: dict[int, Tensor] = {}
    for name, child in module.named_modules():
        for own in (child._parameters, child._buffers):
            for key, tensor in own.items():
                if tensor is None or not tensor.is_floating_point():
                    continue
                if id(tensor) not in made:  # a tensor of two modules stays one
                    made[id(tensor)] = _changed(tensor, partial(change, name), folder)
                own[key] = made[id(tensor)]


def _changed(tensor: Tensor, change: Callable[[Tensor], Tensor], folder: Path | None) -> Tensor:
    given = tensor.detach()
    after = change(given)
    if after is given:
        return tensor
    after = after if folder is None else on_disk(after, folder)
    return nn.Parameter(after, requires_grad=False) if isinstance(tensor, nn.Parameter) else after
