"""What a training step takes, term by term: memory of the device, memory of the host, arithmetic operations.

What belongs here: how terms add up, each with the line that lets a person check it. What does not: the terms that
depend on the architecture (`backbones.sizes`), the sizes that go in (`model_size`, `plan`), disk, what to do when it
does not fit (`plan`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from lofi_assets.backbones.sizes import ModelSize, StepShape
from lofi_assets.training.config import TrainingSettings
from lofi_assets.wording import amount

GB = 1e9
"""Bytes; a card sold as 24 GB has 25.8 of these, so the estimate is on the safe side."""
DEVICE_MARGIN_BYTES = 0.7e9
"""Assumed: CUDA context, cuBLAS and cuDNN workspaces."""
FRAGMENTATION = 0.06
"""Assumed share that the allocator loses between blocks of unequal size."""
LIBRARIES_BYTES = 3.0e9
"""Assumed: host memory of Python, torch and its CUDA libraries."""
BYTES_OF = {"none": None, "int8": 1.0, "nf4": 0.5625}
"""Bytes of a quantized number; nf4: 4 bits and a float32 scale for every 64."""

QUANTIZED = {"attention": ("attention",), "blocks": ("attention", "feed-forward")}
"""Setting -> parts of a model's size. Of the feed-forward part the depthwise convolutions, 0.1 %, are not quantized."""

Quantization = Literal["none", "int8", "nf4"]


@dataclass(frozen=True)
class Choices:
    """The training settings that memory depends on."""

    precision: Literal["bf16-mixed", "32"] = "bf16-mixed"
    batch_size: int = 1
    accumulate: int = 1
    crop_frames: int | None = None
    gradient_checkpointing: bool = True
    cuda_graphs: bool = False
    optimizer: Literal["adamw", "adamw_8bit", "prodigy"] = "adamw"
    base_quantization: Quantization = "none"
    quantized_parts: Literal["attention", "blocks"] = "attention"
    ema_decay: float | None = None
    processes: int = 1
    parallel: Literal["ddp", "fsdp"] = "ddp"
    preview_count: int = 0
    preview_seconds: float = 0.0

    @classmethod
    def of(cls, settings: TrainingSettings) -> "Choices":
        """Those of a run."""
        values = settings.model_dump()
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    @property
    def share(self) -> float:
        """Of base, adapter and optimiser, what one process holds."""
        return 1 / self.processes if self.parallel == "fsdp" else 1.0

    @property
    def element(self) -> int:
        """Bytes of a frozen number and of most activations."""
        return 2 if self.precision == "bf16-mixed" else 4


@dataclass(frozen=True)
class Workload:
    """The largest that a step can see, and how much there is."""

    frames: int
    """Latent frames of the longest training track."""
    tokens: Mapping[str, int]
    """Kind of condition -> tokens of the longest."""
    tracks: int
    minutes: float
    """Of all tracks."""
    source: str
    """Where these numbers come from, for people."""
    mean_frames: int = 0
    """Latent frames of a track on average; 0 where only the longest is known."""
    cached: bool = False
    """Whether the features are in the cache already."""

    def step_frames(self, choices: Choices) -> int:
        """Frames that one item of a step has at most."""
        return min(self.frames, choices.crop_frames or self.frames)

    def step(self, choices: Choices) -> StepShape:
        """The largest forward pass."""
        return StepShape(self.step_frames(choices), self.tokens, choices.batch_size, choices.precision)


@dataclass(frozen=True)
class Term:
    """One part of an estimate."""

    part: str
    bytes: float
    arithmetic: str


@dataclass(frozen=True)
class Memory:
    """Memory of one device: what stays, and the phases of a step, of which the largest counts."""

    stays: tuple[Term, ...]
    phases: tuple[Term, ...]
    margin: Term

    @property
    def peak_phase(self) -> Term:
        """The phase that takes most."""
        return max(self.phases, key=lambda term: term.bytes)

    @property
    def used(self) -> float:
        """Bytes of tensors at the peak."""
        return sum(term.bytes for term in self.stays) + self.peak_phase.bytes

    @property
    def total(self) -> float:
        """Bytes asked of the device, with the margin."""
        return self.used + self.margin.bytes


def device_memory(size: ModelSize, choices: Choices, work: Workload, *, on_gpu: bool) -> Memory:
    """Memory of one device while it trains."""
    phases = _phases(size, choices, work, on_gpu=on_gpu)
    stays = (*_frozen(size, choices), *_trained(size, choices), *_recorded(size, choices, phases))
    used = sum(term.bytes for term in stays) + max(term.bytes for term in phases)
    fixed = DEVICE_MARGIN_BYTES if on_gpu else 0.0
    margin = Term(
        "margin (assumed)",
        fixed + FRAGMENTATION * used,
        f"{amount(fixed)} for the CUDA context + {FRAGMENTATION:.0%} of {amount(used)} for fragmentation",
    )
    return Memory(stays, phases, margin)


def saved_activations(size: ModelSize, choices: Choices, work: Workload) -> float:
    """Bytes that are kept from the forward to the backward pass."""
    step = work.step(choices)
    around = size.other_activations(step).bytes
    if choices.gradient_checkpointing:
        return size.block_inputs(step).bytes + around
    return size.layers * size.block_activations(step).bytes + around


def step_operations(size: ModelSize, choices: Choices, work: Workload) -> float:
    """Floating-point operations of one optimiser step of one process (a multiply-add counts two)."""
    once = size.operations(work.step(choices), recomputed=choices.gradient_checkpointing)
    return once * choices.accumulate


def step_traffic(size: ModelSize, choices: Choices) -> float:
    """Bytes of weights, gradients and moments that one optimiser step of one process moves, activations left out.

    Every pass reads the frozen weights: forward, backward, and once more if activations are computed again. The
    optimiser reads and writes adapter and moments, and reads the gradients that were written.
    """
    passes = choices.accumulate * (3 if choices.gradient_checkpointing else 2)
    frozen = choices.element * sum(size.parts.values()) * passes
    return frozen + size.adapter * (2 * 4 + 2 * 4 + 2 * _moment_bytes(choices))


def host_memory(size: ModelSize, choices: Choices, *, on_gpu: bool) -> tuple[Term, ...]:
    """Memory of one process on the host, besides the device: what it takes at its peak."""
    state = 4 * size.adapter + _moment_bytes(choices) * size.adapter
    loading = choices.element * sum(size.parts.values()) if on_gpu else 0.0
    saving = max(2 * 4 * size.adapter, state)
    return (
        Term("libraries (assumed)", LIBRARIES_BYTES, "Python, torch and its CUDA libraries"),
        Term(
            "loading or saving",
            max(loading, saving),
            f"the larger of the base on its way to the device ({amount(loading)}) and a state or checkpoint on its way "
            f"to disk ({amount(saving)})",
        ),
    )


def state_bytes(size: ModelSize, choices: Choices) -> float:
    """Bytes of the resumable state: adapter, optimiser, moving average."""
    average = 4 * size.adapter if choices.ema_decay else 0
    return (4 + _moment_bytes(choices)) * size.adapter + average


def _frozen(size: ModelSize, choices: Choices) -> tuple[Term, ...]:
    quantized, parts = BYTES_OF[choices.base_quantization], QUANTIZED[choices.quantized_parts]
    terms = []
    for part, count in size.parts.items():
        each = quantized if quantized and part in parts else choices.element
        kind = choices.base_quantization if quantized and part in parts else _dtype(choices)
        terms.append(Term(f"frozen {part}, {kind}", choices.share * each * count, _shared(choices, count, each)))
    if choices.share < 1:
        gathered = 2 * choices.element * size.largest_block
        terms.append(Term("blocks gathered (FSDP)", gathered, f"2 x {size.largest_block:,} x {choices.element} B"))
    return tuple(terms)


def _trained(size: ModelSize, choices: Choices) -> tuple[Term, ...]:
    parts = {f"adapter r={size.rank}, float32": 4.0, f"moments, {choices.optimizer}": _moment_bytes(choices)}
    if choices.ema_decay:
        parts["moving average (EMA)"] = 4.0
    return tuple(
        Term(part, choices.share * each * size.adapter, _shared(choices, size.adapter, each))
        for part, each in parts.items()
    )


def _recorded(size: ModelSize, choices: Choices, phases: tuple[Term, ...]) -> tuple[Term, ...]:
    """What CUDA graphs keep: the memory of a pass, once for all sizes, and a place for the gradients."""
    if not choices.cuda_graphs:
        return ()
    largest, gradients = max(phases[:2], key=lambda term: term.bytes), 4.0 * size.adapter
    text = f"a {largest.part} {amount(largest.bytes)} + gradients {amount(gradients)}"
    return (Term("recorded passes (CUDA graphs)", largest.bytes + gradients, text),)


def _phases(size: ModelSize, choices: Choices, work: Workload, *, on_gpu: bool) -> tuple[Term, ...]:
    """What comes and goes. Gradients grow while saved activations shrink, so that only the larger of them counts."""
    saved, gradients = saved_activations(size, choices, work), 4.0 * size.adapter * choices.share
    held = gradients if choices.accumulate > 1 else 0.0
    what, moving = _saved_arithmetic(size, choices, work), size.gradients_under_way(work.step(choices))
    under_way = f"gradients under way {amount(moving)}"
    either, which = (saved + held, "both") if held else (max(saved, gradients), "the larger")
    ready = f"{which} of saved {amount(saved)} and the adapter's gradients {amount(gradients)}"
    kept = f" + gradients of earlier passes {amount(held)}" if held else ""
    forward = Term("forward pass", saved + held, f"{what}{kept}")
    if choices.gradient_checkpointing:
        block = size.block_activations(work.step(choices))
        again = f"one block recomputed {amount(block.bytes)} [{block.arithmetic}]"
        backward = Term("backward pass", either + block.bytes + moving, f"{ready} + {again} + {under_way}")
    else:
        backward = Term("backward pass", either + moving, f"{ready} + {under_way}")
    return forward, backward, _update(choices, gradients, on_gpu=on_gpu), *_preview(size, choices, on_gpu=on_gpu)


def _update(choices: Choices, gradients: float, *, on_gpu: bool) -> Term:
    if choices.optimizer != "adamw" or on_gpu:  # there AdamW is one kernel, without copies; the others go one by one
        return Term("optimiser step", gradients, f"gradients {amount(gradients)}")
    return Term("optimiser step", 2 * gradients, f"gradients {amount(gradients)} + AdamW's temporary copy, the same")


def _preview(size: ModelSize, choices: Choices, *, on_gpu: bool) -> tuple[Term, ...]:
    if not choices.preview_count:
        return ()
    work = size.decoding(choices.preview_seconds, on_gpu=on_gpu)
    aside = 4.0 * size.adapter if choices.ema_decay else 0.0
    text = f"autoencoder and vocoder {size.decoder:,} x 4 B + {work.arithmetic} {amount(work.bytes)}"
    kept = f" + the adapter while the average stands in {amount(aside)}" if aside else ""
    return (Term("preview", 4 * size.decoder + work.bytes + aside, f"{text}{kept}"),)


def _shared(choices: Choices, count: int, each: float) -> str:
    return f"{count:,} x {each:g} B" + (f" / {choices.processes} processes" if choices.share < 1 else "")


def _saved_arithmetic(size: ModelSize, choices: Choices, work: Workload) -> str:
    step = work.step(choices)
    other, block = size.other_activations(step).arithmetic, size.block_activations(step)
    if choices.gradient_checkpointing:
        inputs = size.block_inputs(step)
        return f"{inputs.arithmetic} = {amount(inputs.bytes)} + {other}"
    return f"{size.layers} blocks x {amount(block.bytes)} [{block.arithmetic}] + {other}"


def _moment_bytes(choices: Choices) -> float:
    return {"adamw": 8.0, "adamw_8bit": 2.03, "prodigy": 16.0}[choices.optimizer]


def _dtype(choices: Choices) -> str:
    return "bfloat16" if choices.precision == "bf16-mixed" else "float32"
