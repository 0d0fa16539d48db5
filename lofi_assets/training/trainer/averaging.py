"""An exponential moving average of the adapter: smoother weights to judge and to release than the last ones."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn


@dataclass(frozen=True)
class Average:
    """The average of `parameters`, by the same names."""

    parameters: Mapping[str, torch.nn.Parameter]
    decay: float
    tensors: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, parameters: Mapping[str, torch.nn.Parameter], *, decay: float) -> "Average":
        """An average that starts at the parameters as they are."""
        return cls(parameters, decay, {name: tensor.detach().clone() for name, tensor in parameters.items()})

    def update(self, step: int) -> None:
        """Take in the parameters as they are after `step`; early on they weigh more, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(list(self.tensors.values()), list(self.parameters.values()), None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the parameters hold the average."""
        kept = [tensor.detach().clone() for tensor in self.parameters.values()]
        self._put(list(self.tensors.values()))
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, tensors: list[torch.Tensor]) -> None:
        for parameter, tensor in zip(self.parameters.values(), tensors, strict=True):
            parameter.copy_(tensor)
