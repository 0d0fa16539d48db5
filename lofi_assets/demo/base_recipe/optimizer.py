"""How the weights of a stage move: Muon for matrices where the recipe asks for it, AdamW for all else, some entries not
at all.

Rates, clipping, what stays, and the optimiser's state by name; `stage` keeps that state on disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from lofi_assets.demo.base_recipe.settings import Training

LEAST_RATE = 0.02
"""Share of the peak learning rate that a cosine ends at."""
MOMENTUM = 0.95
ADAMW_RMS = 0.2
"""Root mean square of an update of AdamW at the rate 1."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Factors of a singular value, of its third and of its fifth power."""
NEWTON_SCHULZ_STEPS = 5
LEAST_SIDE = 16
"""Of a matrix: a kernel of one channel or one output has no singular values worth levelling."""

Groups = Mapping[str, Mapping[str, nn.Parameter]]
"""Group -> name -> parameter."""
Fixed = Mapping[Tensor, Tensor]
"""Parameter -> which of its entries stay."""
NOTHING: Fixed = MappingProxyType({})


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon), of matrices.

    `torch.optim.Muon` in float32: torch computes in bfloat16, which takes 17 times as long as all else of a step on a
    CPU without instructions for it. An update is about as long as AdamW's at the same rate (Liu et al. 2025,
    arXiv:2502.16982).
    """

    def __init__(self, matrices: Iterable[nn.Parameter], *, weight_decay: float) -> None:
        super().__init__(list(matrices), {"lr": 0.0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
                update = orthogonal(matrix.grad.lerp(momentum, MOMENTUM))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * ADAMW_RMS * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """(m, n) with the singular vectors of a matrix, and singular values near 1 (0.7 to 1.2) in place of its own.

    Five Newton-Schulz steps, odd polynomials of the singular values; those far below the largest stay smaller.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    wide = wide / wide.norm().clamp(min=1e-7)
    first, third, fifth = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = wide @ wide.mT
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=third, alpha=fifth), wide, beta=first)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.mT


class StageOptimizer:
    """One step of all parameters: gradients clipped by group, then each moved by the optimiser that it belongs to."""

    def __init__(self, groups: Groups, training: Training, fixed: Fixed) -> None:
        self.training, self.fixed = training, fixed
        self.clipped = [list(members.values()) for members in groups.values()]
        self.parameters = {f"{group}.{name}": p for group, members in groups.items() for name, p in members.items()}
        matrices = {n: _matrix(p) for n, p in self.parameters.items() if training.muon_rate and _is_matrix(p)}
        others = {name: p for name, p in self.parameters.items() if name not in matrices}
        self.matrices = matrices
        adamw = torch.optim.AdamW(
            others.values(), betas=training.betas, weight_decay=training.weight_decay, foreach=True
        )
        self.parts: list[tuple[torch.optim.Optimizer, dict[str, nn.Parameter], float]] = [
            (adamw, others, training.learning_rate)
        ]
        if matrices:
            muon = Muon(matrices.values(), weight_decay=training.weight_decay)
            self.parts.append((muon, matrices, training.muon_rate))

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Move every parameter that has a gradient; steps count from 1."""
        for parameter, entries in self.fixed.items():
            if parameter.grad is not None:
                parameter.grad.masked_fill_(entries, 0.0)
        for members in self.clipped:
            nn.utils.clip_grad_norm_(members, self.training.clip)
        for name, matrix in self.matrices.items():
            gradient = self.parameters[name].grad
            matrix.grad = None if gradient is None else gradient.flatten(1)
        # Muon moves an entry whose own gradient is zero, and weight decay moves all
        before = {parameter: parameter.clone() for parameter in self.fixed}
        factor = rate_factor(step, self.training)
        for optimizer, _, peak in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
        for parameter, entries in self.fixed.items():
            parameter.copy_(torch.where(entries, before[parameter], parameter))

    def state(self) -> dict[str, Tensor]:
        """`name/moment` -> what the next step depends on beside the weights."""
        return {
            f"{name}/{moment}": value
            for optimizer, members, _ in self.parts
            for name, parameter in members.items()
            for moment, value in optimizer.state.get(parameter, {}).items()
        }

    def load_state(self, saved: Mapping[str, Tensor]) -> None:
        """Put a saved `state` back."""
        moments: dict[str, dict[str, Tensor]] = {}
        for key, value in saved.items():
            name, _, moment = key.rpartition("/")
            moments.setdefault(name, {})[moment] = value
        for optimizer, members, _ in self.parts:
            known = {index: moments[name] for index, name in enumerate(members) if name in moments}
            optimizer.load_state_dict({"state": known, "param_groups": optimizer.state_dict()["param_groups"]})


def rate_factor(step: int, training: Training) -> float:
    """Share of the peak learning rate at a step: a linear warm-up, then constant or a half cosine."""
    warm = min(1.0, step / max(1, training.warmup))
    if training.schedule == "constant":
        return warm
    progress = min(1.0, step / training.steps)
    return warm * (LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))


def _is_matrix(parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and min(len(parameter), parameter[0].numel()) >= LEAST_SIDE


def _matrix(parameter: nn.Parameter) -> nn.Parameter:
    """A kernel's own memory as the matrix (outputs, all else) that Muon asks for."""
    return nn.Parameter(parameter.detach().view(len(parameter), -1))
