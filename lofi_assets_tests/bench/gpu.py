"""`make bench-gpu`: what ACE-Step v1 costs at its real size on the GPU of this machine, as JSON with the card's name.

`python -m lofi_assets_tests.bench.gpu [--tiny] [--upstream DIR] [--to FILE]`. Weights are random, of the published
sizes; `--tiny` runs the same rows at a tiny size on any device, to see that they run. A row that fails says why and
hides no other. With `--upstream`, a folder from which upstream's `acestep` imports, its transformer's step stands
beside ours.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.conditions import conditions_of
from lofi_assets.backbones.ace_step_v1.objective import Objective
from lofi_assets.backbones.ace_step_v1.sampler import Conditions, sample_latents
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.determinism import deterministic
from lofi_assets.backbones.sampling import FLOAT32, Precision
from lofi_assets.backbones.training import Item
from lofi_assets.training.config import LoraSettings, TrainingSettings
from lofi_assets.training.planning.cards import card_present
from lofi_assets.training.planning.memory import Choices, Workload, device_memory, step_operations
from lofi_assets.training.planning.model_size import measure as model_size
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.exactness import prove_exact
from lofi_assets.training.trainer.model import compile_blocks, compiles
from lofi_assets.training.trainer.optimizer import build_optimizer
from lofi_assets_tests.bench.killed import killed_row

FRAMES_PER_SECOND = 44_100 / 4_096
TARGETS = ("speaker_embedder", "linear_q", "linear_k", "linear_v", "to_q", "to_k", "to_v", "to_out.0")
TINY: dict[str, Any] = {
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "lyric_num_blocks": 1,
    "lyric_hidden_size": 16,
    "lyric_output_size": 16,
    "lyric_attention_heads": 2,
    "lyric_linear_units": 24,
    "patch_embed_mult": 8,
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What all rows share."""

    device: torch.device
    tiny: bool

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of audio, in a training step."""
        return (2.0, 4.0) if self.tiny else (60.0, 120.0, 180.0)

    @property
    def repeats(self) -> int:
        """Steps that are timed, after as many that are not."""
        return 1 if self.tiny else 8

    @property
    def rank(self) -> int:
        """Of the adapter (constitution)."""
        return 4 if self.tiny else 256

    def model(self) -> ACEStepTransformer2DModel:
        """Frozen in bfloat16, random."""
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with self.device:
                options = {"drop_dead_projections": True, "build_projectors": False}
                model: ACEStepTransformer2DModel = ACEStepTransformer2DModel(**options, **(TINY if self.tiny else {}))
        finally:
            torch.set_default_dtype(before)
        return model.eval()

    def item(self, seconds: float, seed: int = 0) -> Item:
        """A training example; latents as long as `seconds` of audio."""
        random = torch.Generator().manual_seed(seed)
        shape = (8, 16, int(seconds * FRAMES_PER_SECOND))
        text = torch.randn(64, 768, generator=random)
        conditions = conditions_of(text, torch.ones(1, dtype=torch.long), torch.zeros(512))
        latents, noise = (torch.randn(shape, generator=random) for _ in range(2))
        return Item(f"{seconds:g} s", latents, noise, 0.5, conditions)

    def trained(self, *, recomputed: bool, compiled: bool) -> "Trained":
        """A model with its adapter and optimiser."""
        model = self.model()
        lora = LoraSettings(r=self.rank, lora_alpha=32, target_modules=TARGETS)
        parameters = adapters.add_lora(model, lora, seed=0)
        if recomputed:
            model.enable_gradient_checkpointing()
        if compiled:
            compile_blocks(list(model.transformer_blocks))
        objective = Objective(model, torch.bfloat16, self.device, stepped=compiled)
        return Trained(objective, parameters, build_optimizer(TrainingSettings(), parameters.values()))

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timed(self, work: Callable[[], object], *, repeats: int) -> float:
        """Median seconds."""
        taken = []
        for turn in range(2 * repeats):
            started = time.perf_counter()
            work()
            self.wait()
            if turn >= repeats:
                taken.append(time.perf_counter() - started)
        return statistics.median(taken)


@dataclass(frozen=True)
class Trained:
    """What a step needs."""

    objective: Objective
    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer

    def step(self, items: list[Item]) -> float:
        """The loss of one optimiser step."""
        loss = self.objective.losses(items).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 0.5)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


def training_rows(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Seconds, memory, kernels and share of peak by length, recomputing, compiling and batch."""
    compiled = (False, True) if compiles(TrainingSettings(), bench.device) else (False,)
    choices = [(s, 1, r, c) for c in compiled for r in (True, False) for s in bench.seconds]
    choices += [(bench.seconds[1], batch, True, c) for c in compiled for batch in (2, 4)]
    for seconds, batch, recomputed, compiles_it in choices:
        yield lambda s=seconds, b=batch, r=recomputed, c=compiles_it: _training_row(bench, s, b, r, c)  # type: ignore[misc]


def _training_row(bench: Bench, seconds: float, batch: int, recomputed: bool, compiled: bool) -> Row:
    trained = bench.trained(recomputed=recomputed, compiled=compiled)
    items = [bench.item(seconds, seed) for seed in range(batch)]
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    taken = bench.timed(lambda: trained.step(items), repeats=bench.repeats)
    frames = items[0].latents.shape[-1]
    return {
        "row": "training step",
        "audio_seconds": seconds,
        "batch": batch,
        "recomputed": recomputed,
        "compiled": compiled,
        "seconds": taken,
        "frames_per_second": batch * frames / taken,
        **({} if bench.tiny else _against_plan(bench.device, frames, batch, recomputed, taken)),
        "kernels": _kernels(bench, lambda: trained.step(items)),
        "peak_memory_gb": torch.cuda.max_memory_allocated(bench.device) / 1e9 if bench.device.type == "cuda" else None,
    }


def _against_plan(device: torch.device, frames: int, batch: int, recomputed: bool, taken: float) -> Row:
    """Arithmetic a second, its share of the card's dense bfloat16 peak, and the memory that the plan foresees."""
    lora = LoraSettings(r=256, lora_alpha=32, target_modules=TARGETS)
    size, choices = model_size(ACE_STEP_V1, None, lora), Choices(batch_size=batch, gradient_checkpointing=recomputed)
    work = Workload(frames=frames, tokens={"text": 64, "lyrics": 1}, tracks=1, minutes=1.0, source="bench")
    planned = device_memory(size, choices, work, on_gpu=True)
    tflops = step_operations(size, choices, work) / taken / 1e12
    share = share_of_peak(tflops, torch.cuda.get_device_name(device))
    return {"tflops": tflops, "share_of_peak": share, "planned_memory_gb": planned.used / 1e9}


def share_of_peak(tflops: float, card: str) -> float | None:
    """Share of the dense bfloat16 throughput of a card's data sheet; None of a card that the table lacks."""
    found = card_present(card, total=0.0, free=0.0)
    return tflops / found.tflops if found.tflops and found.bfloat16 else None


def _kernels(bench: Bench, work: Callable[[], object]) -> int | None:
    """Kernels that the GPU ran; None on a CPU, where `kernel_counts` counts operations."""
    if bench.device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        bench.wait()
    return sum(event.count for event in profiled.key_averages())


def sampling_rows(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Real-time factor of the latents at 27 steps, branches together and apart, in both of `sampling.precision`."""
    for precision in get_args(Precision):
        for together in (True, False):
            yield lambda p=precision, t=together: _sampling_row(bench, p, t)  # type: ignore[misc]


def _sampling_row(bench: Bench, precision: Precision, together: bool) -> Row:
    dtype = torch.float32 if precision == FLOAT32 else torch.bfloat16
    model, seconds, steps = bench.model(), bench.seconds[0], 2 if bench.tiny else 27
    torch.nn.Module.to(model, dtype)
    ones = torch.ones(1, 64, dtype=torch.long)
    text, speaker = torch.randn(1, 64, 768), torch.zeros(1, 512)
    conditions = Conditions(text, ones, speaker, ones[:, :1], ones[:, :1]).to(bench.device, dtype)
    frames = int(seconds * FRAMES_PER_SECOND)

    def work() -> object:
        return sample_latents(model, conditions, frames=frames, seeds=[0], steps=steps, together=together)

    with deterministic(bench.device):  # as samples are made
        taken = bench.timed(work, repeats=1)
    return {"row": "sampling", "precision": precision, "together": together, "steps": steps, "rtf": seconds / taken}


def exactness_rows(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Gradients twice; two runs; a run that is put down and taken up, in one process and by another: the same bits."""
    for compiled in (False, True) if compiles(TrainingSettings(), bench.device) else (False,):
        yield lambda c=compiled: _exactness_row(bench, c)  # type: ignore[misc]
        yield lambda c=compiled: killed_row(bench, compiled=c)  # type: ignore[misc]


def _exactness_row(bench: Bench, compiled: bool) -> Row:
    items, steps = [bench.item(bench.seconds[-1])], 2 if bench.tiny else 10

    def run(resumed_at: int | None) -> tuple[list[float], str]:
        trained, losses = bench.trained(recomputed=True, compiled=compiled), []
        for step in range(steps):
            if step == resumed_at:
                kept = adapters.snapshot(trained.parameters), trained.optimizer.state_dict()
                trained = bench.trained(recomputed=True, compiled=compiled)
                with torch.no_grad():
                    for name, parameter in trained.parameters.items():
                        parameter.copy_(kept[0][name])
                trained.optimizer.load_state_dict(kept[1])
            losses.append(trained.step(items))
        return losses, adapters.digest(adapters.snapshot(trained.parameters))

    with deterministic(bench.device):
        trained = bench.trained(recomputed=True, compiled=compiled)
        prove_exact(trained.objective, items, trained.parameters)
        del trained
        whole, again, resumed = run(None), run(None), run(steps // 2)
    same = {"same_again": whole == again, "same_resumed": whole == resumed}
    return {"row": "exactness", "compiled": compiled, "gradients_twice": True, **same, "losses": whole[0]}


def upstream_rows(bench: Bench, folder: Path) -> Iterator[Callable[[], Row]]:
    """The step of upstream's own transformer, with the adapter that peft puts on it."""
    for seconds in bench.seconds:
        yield lambda s=seconds: _upstream_row(bench, folder, s)  # type: ignore[misc]


def _upstream_row(bench: Bench, folder: Path, seconds: float) -> Row:
    sys.path.insert(0, str(folder))
    kind = importlib.import_module("acestep.models.ace_step_transformer").ACEStepTransformer2DModel
    torch.manual_seed(0)
    with bench.device:
        model = kind(**bench.model().config if bench.tiny else {}).to(torch.bfloat16)
    parameters = adapters.add_lora(model, LoraSettings(r=bench.rank, lora_alpha=32, target_modules=TARGETS), seed=0)
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4)
    item = bench.item(seconds)
    kwargs: dict[str, Any] = {"device": bench.device, "dtype": torch.bfloat16}
    ones = torch.ones(1, 64, dtype=torch.long, device=bench.device)

    def work() -> object:
        with torch.autocast(bench.device.type, dtype=torch.bfloat16):
            output = model(
                hidden_states=item.latents[None].to(**kwargs),
                attention_mask=torch.ones(1, item.latents.shape[-1], **kwargs),
                encoder_text_hidden_states=item.conditions["text"][None].to(**kwargs),
                text_attention_mask=ones,
                speaker_embeds=torch.zeros(1, 512, **kwargs),
                lyric_token_idx=ones[:, :1],
                lyric_mask=ones[:, :1],
                timestep=torch.tensor([500.0], device=bench.device),
            )
        output.sample.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return output

    taken = bench.timed(work, repeats=bench.repeats)
    return {
        "row": "upstream's training step",
        "audio_seconds": seconds,
        "seconds": taken,
        "kernels": _kernels(bench, work),
    }


def measure(bench: Bench, *, upstream: Path | None) -> Row:
    """All rows, and what they were measured on."""
    cuda = bench.device.type == "cuda"
    rows: list[Row] = []
    works = [*training_rows(bench), *sampling_rows(bench), *exactness_rows(bench)]
    works += list(upstream_rows(bench, upstream)) if upstream else []
    for work in works:
        try:
            rows.append(work())
        except Exception as error:  # the other rows are worth having
            rows.append({"row": "failed", "why": f"{type(error).__name__}: {error}"})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if cuda:
            torch.cuda.empty_cache()
    card = torch.cuda.get_device_name(bench.device) if cuda else "cpu"
    return {"card": card, "torch": torch.__version__, "cuda": torch.version.cuda, "tiny": bench.tiny, "rows": rows}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m lofi_assets_tests.bench.gpu", description=main.__doc__)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on a CPU too: do the rows run?")
    parser.add_argument("--upstream", type=Path, help="folder from which upstream's acestep imports")
    parser.add_argument("--to", type=Path, help="also write the JSON here")
    chosen = parser.parse_args(arguments)
    if not (chosen.tiny or torch.cuda.is_available()):
        print("no GPU: the real size needs one; --tiny runs anywhere", file=sys.stderr)
        return 1
    bench = Bench(torch.device("cuda" if torch.cuda.is_available() else "cpu"), chosen.tiny)
    text = json.dumps(measure(bench, upstream=chosen.upstream), indent=1)
    print(text)
    if chosen.to:
        chosen.to.write_text(text + "\n", encoding="utf-8")
    return 1 if '"row": "failed"' in text else 0


if __name__ == "__main__":
    sys.exit(main())
