"""The optimiser of the base's stages: Muon levels what a matrix learns, AdamW moves the rest, what is fixed stays."""

from dataclasses import replace

import torch
from torch import nn

from lofi_assets.demo.base_recipe.optimizer import NOTHING, Fixed, Muon, StageOptimizer, rate_factor
from lofi_assets.demo.base_recipe.settings import FULL, Training

TRAINING = Training(steps=10, learning_rate=1e-2, batch=1, warmup=1, schedule="constant", weight_decay=0.0)


class layers(nn.Module):
    """A kernel that is a matrix, one that is none, and a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.wide = nn.Conv1d(24, 32, kernel_size=3)
        self.narrow = nn.Conv1d(32, 1, kernel_size=3)

    def learn(self, training: Training, *, fixed: Fixed = NOTHING, steps: int = 1) -> StageOptimizer:
        optimizer = StageOptimizer({"all": dict(self.named_parameters())}, training, fixed)
        for step in range(1, steps + 1):
            self.take(optimizer, step)
        return optimizer

    def take(self, optimizer: StageOptimizer, step: int) -> None:
        optimizer.zero_grad()
        self.loss().backward()
        optimizer.step(step)

    def loss(self) -> torch.Tensor:
        heard = torch.randn(4, 24, 16, generator=torch.Generator().manual_seed(2))
        return self.narrow(self.wide(heard)).square().mean()


def test_the_learning_rate_rises_and_falls() -> None:
    training = FULL.training["dcae"]
    rates = [rate_factor(step, training) for step in (1, training.warmup, training.steps // 2, training.steps)]
    assert rates[0] < 0.01 and rates[1] > 0.99 and 0.4 < rates[2] < 0.6 and abs(rates[3] - 0.02) < 1e-9


def test_without_muon_a_step_is_adamws_on_clipped_gradients() -> None:
    ours, theirs = layers(), layers()
    ours.learn(TRAINING, steps=3)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=TRAINING.betas, weight_decay=0.0, foreach=True)
    for _ in range(3):
        adamw.zero_grad()
        theirs.loss().backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), TRAINING.clip)
        adamw.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_muon_moves_a_matrix_alike_in_all_directions() -> None:
    kernel, bias = nn.Parameter(torch.zeros(32, 24, 3)), nn.Parameter(torch.zeros(32))
    optimizer = StageOptimizer({"all": {"kernel": kernel, "bias": bias}}, replace(TRAINING, muon_rate=1e-3), NOTHING)
    left, _, right = torch.linalg.svd(
        torch.randn(32, 72, generator=torch.Generator().manual_seed(1)), full_matrices=False
    )
    kernel.grad = (left @ torch.diag(torch.logspace(0, -1.5, 32)) @ right).view(32, 24, 3)
    optimizer.step(1)
    singular = torch.linalg.svdvals(kernel.detach().flatten(1))
    # unlike the gradient's, which are up to 32 times each other; as long a step as AdamW's of a fifth of its rate
    assert singular.max() < 2.5 * singular.min()
    assert 0.5 < float(kernel.detach().square().mean().sqrt()) / (1e-3 * 0.2) < 1.5


def test_muon_is_torchs_but_for_its_rounding_to_bfloat16() -> None:
    """Of which an update of 0.01 keeps two to three digits."""
    random = torch.Generator().manual_seed(4)
    start = torch.randn(24, 72, generator=random)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = (
        (Muon([ours], weight_decay=0.1), ours),
        (torch.optim.Muon([theirs], weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), theirs),
    )
    for _ in range(4):
        gradient = torch.randn(start.shape, generator=random)
        for optimizer, matrix in optimizers:
            matrix.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = 0.05
            optimizer.step()
    moved, apart = (theirs - start).detach().norm(), (ours - theirs).detach().norm()
    assert float(moved) > 0.5 and float(apart / moved) < 0.02


def test_what_is_fixed_stays_to_the_bit_and_the_rest_moves() -> None:
    before, after = layers(), layers()
    fixed: Fixed = {
        p: torch.rand(p.shape, generator=torch.Generator().manual_seed(3)) < 0.5 for p in after.parameters()
    }
    after.learn(replace(TRAINING, muon_rate=1e-2, weight_decay=0.1), fixed=fixed, steps=3)
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(old[fixed[new]], new[fixed[new]])
        assert (old != new)[~fixed[new]].all()


def test_an_optimiser_that_is_put_back_goes_on_in_the_same_bits() -> None:
    training = replace(TRAINING, muon_rate=1e-3)
    whole, resumed = layers(), layers()
    whole.learn(training, steps=4)
    first = resumed.learn(training, steps=2)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    assert {name.rpartition("/")[2] for name in state} == {"momentum_buffer", "exp_avg", "exp_avg_sq", "step"}
    second = resumed.learn(training, steps=0)
    second.load_state(state)
    for step in (3, 4):
        resumed.take(second, step)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
