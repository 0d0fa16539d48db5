"""`make bench-gpu`: what ACE-Step v1 costs at its real size on the GPU of this machine, as JSON with the card's name.

`python -m lofi_assets_tests.bench.gpu [--tiny] [--upstream DIR] [--to FILE]`. Weights are random, of the published
sizes; `--tiny` runs the same rows at a tiny size on any device, to see that they run. A row that fails says why and
hides no other; each is printed when it is there, those that tell most first, and `--limit` ends the list in time. With
`--upstream`, a folder from which upstream's `acestep` imports, its transformer's step stands beside ours.
"""

import argparse
import importlib
import inspect
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from peft.tuners.lora import LoraLayer

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.conditions import conditions_of
from lofi_assets.backbones.ace_step_v1.objective import Objective
from lofi_assets.backbones.ace_step_v1.sampler import Conditions, sample_latents
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.cuda_graphs import CudaGraphs
from lofi_assets.backbones.determinism import deterministic
from lofi_assets.backbones.sampling import FLOAT32, Precision
from lofi_assets.backbones.training import Item
from lofi_assets.training.config import TrainingSettings
from lofi_assets.training.distributed import Processes
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.planning.cards import card_present
from lofi_assets.training.planning.memory import Choices, Workload, device_memory, step_operations
from lofi_assets.training.planning.model_size import measure as model_size
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.exactness import prove_exact
from lofi_assets.training.trainer.model import compile_blocks, compiles
from lofi_assets.training.trainer.optimizer import build_optimizer
from lofi_assets.training.trainer.passes import Passes
from lofi_assets_tests.bench.killed import killed_row

FRAMES_PER_SECOND = 44_100 / 4_096
LARGEST = 12
"""Kernels that a row names, by their time."""
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

    def trained(self, *, compiled: bool, recomputed: bool = True, recorded: bool = False) -> "Trained":
        """A model with its adapter and optimiser."""
        model, settings = self.model(), TrainingSettings(cuda_graphs=recorded)
        lora = LoraSettings(r=self.rank, lora_alpha=32, target_modules=TARGETS)
        parameters = adapters.add_lora(model, lora, seed=0)
        if recomputed:
            model.recompute_blocks(same_chance=not recorded)
        if compiled:
            compile_blocks(list(model.transformer_blocks))
        objective = Objective(model, torch.bfloat16, self.device, stepped=compiled)
        passes = Passes.of(objective, list(parameters.values()), settings, Processes())
        return Trained(passes, parameters, build_optimizer(settings, parameters.values()))

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

    passes: Passes
    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer

    def step(self, items: list[Item]) -> float:
        """The loss of one optimiser step."""
        losses, _ = self.passes(items, last=True)
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 0.5)
        self.optimizer.step()
        self.passes.clear()
        return float(losses.mean())


@dataclass(frozen=True)
class Way:
    """How a step is run, and over what."""

    audio_seconds: float
    batch: int = 1
    recomputed: bool = False
    compiled: bool = False
    recorded: bool = False


def training_rows(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Seconds, memory, kernels and share of peak by length, recomputing, compiling, recording and batch."""
    compiled = (True, False) if compiles(TrainingSettings(), bench.device) else (False,)
    recorded = (True, False) if bench.device.type == "cuda" else (False,)
    short, middle, long = (*bench.seconds, bench.seconds[-1])[:3]
    ways = [Way(middle, 1, r, c, g) for r in (False, True) for c in compiled for g in recorded]
    ways += [Way(seconds, 1, r, compiled[0], recorded[0]) for seconds in (long, short) for r in (False, True)]
    ways += [Way(middle, batch, True, compiled[0], recorded[0]) for batch in (2, 4)]
    yield from (lambda w=way: _training_row(bench, w) for way in dict.fromkeys(ways))


def _training_row(bench: Bench, way: Way) -> Row:
    trained = bench.trained(recomputed=way.recomputed, compiled=way.compiled, recorded=way.recorded)
    items = [bench.item(way.audio_seconds, seed) for seed in range(way.batch)]
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    with deterministic(bench.device):  # as training is
        started = time.perf_counter()
        trained.step(items)
        first = time.perf_counter() - started
        taken = bench.timed(lambda: trained.step(items), repeats=bench.repeats)
        kernels = _kernels(bench, lambda: trained.step(items))
    frames = items[0].latents.shape[-1]
    return {
        "row": "training step",
        **asdict(way),
        "seconds": taken,
        "first_seconds": first,
        "frames_per_second": way.batch * frames / taken,
        **({} if bench.tiny else _against_plan(bench.device, frames, way, taken)),
        **kernels,
        "peak_memory_gb": torch.cuda.max_memory_allocated(bench.device) / 1e9 if bench.device.type == "cuda" else None,
    }


def _against_plan(device: torch.device, frames: int, way: Way, taken: float) -> Row:
    """Arithmetic a second, its share of the card's dense bfloat16 peak, and the memory that the plan foresees."""
    lora = LoraSettings(r=256, lora_alpha=32, target_modules=TARGETS)
    size = model_size(ACE_STEP_V1, None, lora)
    choices = Choices(batch_size=way.batch, gradient_checkpointing=way.recomputed, cuda_graphs=way.recorded)
    work = Workload(frames=frames, tokens={"text": 64, "lyrics": 1}, tracks=1, minutes=1.0, source="bench")
    planned = device_memory(size, choices, work, on_gpu=True)
    tflops = step_operations(size, choices, work) / taken / 1e12
    share = share_of_peak(tflops, torch.cuda.get_device_name(device))
    return {"tflops": tflops, "share_of_peak": share, "planned_memory_gb": planned.used / 1e9}


def share_of_peak(tflops: float, card: str) -> float | None:
    """Share of the dense bfloat16 throughput of a card's data sheet; None of a card that the table lacks."""
    found = card_present(card, total=0.0, free=0.0)
    return tflops / found.tflops if found.tflops and found.bfloat16 else None


def _kernels(bench: Bench, work: Callable[[], object]) -> Row:
    """Kernels that the GPU ran, their time and the largest shares; None on a CPU, where `kernel_counts` counts."""
    if bench.device.type != "cuda":
        return {"kernels": None}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        bench.wait()
    events = sorted(profiled.key_averages(), key=lambda event: -event.self_device_time_total)
    shares = [[event.key[:80], event.count, round(event.self_device_time_total / 1e3, 2)] for event in events]
    total = sum(event.self_device_time_total for event in events) / 1e3
    return {"kernels": sum(event.count for event in events), "kernel_ms": total, "largest": shares[:LARGEST]}


def sampling_rows(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Real-time factor of the latents at 27 steps, branches together and apart, in both of `sampling.precision`."""
    recorded = (True, False) if bench.device.type == "cuda" else (False,)
    for precision, together, graphs in itertools.product(reversed(get_args(Precision)), (True, False), recorded):
        yield lambda p=precision, t=together, g=graphs: _sampling_row(bench, p, t, g)  # type: ignore[misc]


def _sampling_row(bench: Bench, precision: Precision, together: bool, recorded: bool) -> Row:
    dtype = torch.float32 if precision == FLOAT32 else torch.bfloat16
    model, seconds, steps = bench.model(), bench.seconds[0], 2 if bench.tiny else 27
    torch.nn.Module.to(model, dtype)
    ones = torch.ones(1, 64, dtype=torch.long)
    text, speaker = torch.randn(1, 64, 768), torch.zeros(1, 512)
    conditions = Conditions(text, ones, speaker, ones[:, :1], ones[:, :1]).to(bench.device, dtype)
    frames = int(seconds * FRAMES_PER_SECOND)

    def work() -> object:
        record = CudaGraphs().record if recorded else None
        return sample_latents(
            model, conditions, frames=frames, seeds=[0], steps=steps, together=together, record=record
        )

    with deterministic(bench.device):  # as samples are made
        taken = bench.timed(work, repeats=1)
    ways = {"precision": precision, "together": together, "recorded": recorded}
    return {"row": "sampling", **ways, "audio_seconds": seconds, "steps": steps, "rtf": seconds / taken}


def exactness_rows(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Gradients twice; two runs; a run that is put down and taken up, in one process and by another: the same bits."""
    for compiled in (True, False) if compiles(TrainingSettings(), bench.device) else (False,):
        for recorded in (True, False) if bench.device.type == "cuda" else (False,):
            yield lambda c=compiled, r=recorded: _exactness_row(bench, c, r)  # type: ignore[misc]
            yield lambda c=compiled, r=recorded: killed_row(bench, compiled=c, recorded=r)  # type: ignore[misc]


def _exactness_row(bench: Bench, compiled: bool, recorded: bool) -> Row:
    items, steps = [bench.item(bench.seconds[-1])], 2 if bench.tiny else 10

    def run(resumed_at: int | None) -> tuple[list[float], str]:
        trained, losses = bench.trained(compiled=compiled, recorded=recorded), []
        for step in range(steps):
            if step == resumed_at:
                kept = adapters.snapshot(trained.parameters), trained.optimizer.state_dict()
                trained = bench.trained(compiled=compiled, recorded=recorded)
                with torch.no_grad():
                    for name, parameter in trained.parameters.items():
                        parameter.copy_(kept[0][name])
                trained.optimizer.load_state_dict(kept[1])
            losses.append(trained.step(items))
        return losses, adapters.digest(adapters.snapshot(trained.parameters))

    with deterministic(bench.device):
        trained = bench.trained(compiled=compiled, recorded=recorded)
        prove_exact(trained.passes, items, trained.parameters)
        del trained
        whole, again, resumed = run(None), run(None), run(steps // 2)
    same = {"same_again": whole == again, "same_resumed": whole == resumed}
    ways = {"compiled": compiled, "recorded": recorded}
    return {"row": "exactness", **ways, "gradients_twice": True, **same, "losses": whole[0]}


def upstream_rows(bench: Bench, folder: Path) -> Iterator[Callable[[], Row]]:
    """The step of upstream's own transformer, with the adapter that peft puts on it."""
    for recomputed in (False, True):
        yield lambda r=recomputed: _upstream_row(bench, folder, bench.seconds[1], r)  # type: ignore[misc]


def _upstream_row(bench: Bench, folder: Path, seconds: float, recomputed: bool) -> Row:
    sys.path.insert(0, str(folder))
    kind = importlib.import_module("acestep.models.ace_step_transformer").ACEStepTransformer2DModel
    # the published sizes, which are the defaults of ours and not of theirs
    sizes = {name: each.default for name, each in inspect.signature(ACEStepTransformer2DModel).parameters.items()}
    sizes = {**sizes, **(TINY if bench.tiny else {})}
    known = inspect.signature(kind).parameters.keys() - {"lyric_hidden_size"}  # their lyric encoder has one size
    torch.manual_seed(0)
    with bench.device:
        model = kind(**{name: value for name, value in sizes.items() if name in known}).to(torch.bfloat16)
    model.train(recomputed)
    model.gradient_checkpointing = recomputed
    parameters = adapters.add_lora(model, LoraSettings(r=bench.rank, lora_alpha=32, target_modules=TARGETS), seed=0)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.cast_input_dtype_enabled = True  # as peft has it
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
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), 0.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return output

    taken = bench.timed(work, repeats=bench.repeats)
    row = {"row": "upstream's training step", "audio_seconds": seconds, "recomputed": recomputed, "seconds": taken}
    return {**row, **_kernels(bench, work)}


def measure(bench: Bench, *, upstream: Path | None, limit: float = math.inf) -> Row:
    """All rows that begin within `limit` seconds, and what they were measured on."""
    cuda, started = bench.device.type == "cuda", time.perf_counter()
    rows: list[Row] = []
    theirs = upstream_rows(bench, upstream) if upstream else iter(())
    kinds = [training_rows(bench), theirs, sampling_rows(bench), exactness_rows(bench)]
    works = [work for turn in itertools.zip_longest(*kinds) for work in turn if work]
    for work in works:
        if time.perf_counter() - started > limit:
            rows.append({"row": "left out", "rows": len(works) - len(rows), "why": f"{limit:g} s were over"})
            break
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
    parser.add_argument("--limit", type=float, default=math.inf, metavar="S", help="begin no row after S seconds")
    parser.add_argument("--to", type=Path, help="also write the JSON here")
    chosen = parser.parse_args(arguments)
    if not (chosen.tiny or torch.cuda.is_available()):
        print("no GPU: the real size needs one; --tiny runs anywhere", file=sys.stderr)
        return 1
    bench = Bench(torch.device("cuda" if torch.cuda.is_available() else "cpu"), chosen.tiny)
    text = json.dumps(measure(bench, upstream=chosen.upstream, limit=chosen.limit), indent=1)
    print(text)
    if chosen.to:
        chosen.to.write_text(text + "\n", encoding="utf-8")
    return 1 if '"row": "failed"' in text else 0


if __name__ == "__main__":
    sys.exit(main())
