"""Graphics cards by name: memory, arithmetic and bandwidth, each with the document that says so.

What belongs here: the table, and which of its rows a name means. What does not: what a run takes (`plan`). A card that
is not in the table has no speed here: a guess would be a wrong plan.

The figures are those of NVIDIA's documents as others quote them, and what multiprocessors, operations per clock, boost
clock, bus and memory rate come to (a test): dense bfloat16 with float32 sums is 512 operations per multiprocessor and
clock for GeForce and A10G, 1024 for RTX and L cards of Ada and Blackwell, 2048 for A100, 4096 for H100.
"""

import re
from dataclasses import dataclass

from lofi_assets.backbones.sizes import ModelSize
from lofi_assets.errors import LofiError

GIB = 2**30
DESKTOP_BYTES = 1.0e9
"""Assumed: what screens, window manager and browser take of a card that drives them."""
LAUNCHES_PER_BLOCK = 380
"""Kernels of a training step of one item per transformer block, recomputed and not compiled. An H200 launched 525
(12,617 with 24 blocks of ACE-Step v1) when 497 were counted on a CPU, which now counts 360 (decision 030)."""
LAUNCH_SECONDS = 28e-6
"""Between two kernels of such a step when the card waits for the host: at best 0.35 s for 12,617 (measured on a virtual
machine with an H200; a fast desktop processor may take half of it)."""


class UnknownCardError(LofiError, ValueError):
    """A name that no row of the table, or more than one, has."""


@dataclass(frozen=True)
class CardSheet:
    """A card by its data sheet."""

    name: str
    gib: float
    """Memory as sold, in GiB."""
    tflops: float
    """Dense bfloat16 products with float32 sums, TFLOP/s; float32 where the card has no bfloat16."""
    bandwidth: float
    """GB/s of its memory."""
    source: str
    drivers: tuple[str, ...] = ()
    """Names that the driver gives it, besides `name`."""
    desktop: bool = False
    """Whether it usually drives screens."""
    bfloat16: bool = True
    """Whether it computes in bfloat16."""

    @property
    def memory(self) -> float:
        """Bytes."""
        return self.gib * GIB


_AMPERE = "NVIDIA Ampere GA102 whitepaper 2.1, half of the sparse figure"
_ADA = "NVIDIA Ada GPU architecture whitepaper 2.1, float32 accumulation, half of the sparse figure"
_BLACKWELL = "NVIDIA RTX Blackwell GPU architecture whitepaper, float32 accumulation, half of the sparse figure"
_SCALED = "its float32 TFLOP/s x 2, as for the whole GeForce family in NVIDIA's architecture whitepapers"

CARDS: tuple[CardSheet, ...] = (
    CardSheet("RTX 3060 12GB", 12, 25.5, 360, f"NVIDIA product page; {_SCALED}", ("RTX 3060",), desktop=True),
    CardSheet("RTX 3090", 24, 71.0, 936, _AMPERE, desktop=True),
    CardSheet("RTX 4060 Ti 8GB", 8, 44.1, 288, f"NVIDIA product page; {_SCALED}", ("RTX 4060 Ti",), desktop=True),
    CardSheet("RTX 4060 Ti 16GB", 16, 44.1, 288, f"NVIDIA product page; {_SCALED}", ("RTX 4060 Ti",), desktop=True),
    CardSheet("RTX 4080", 16, 97.5, 717, _ADA, desktop=True),
    CardSheet("RTX 4090", 24, 165.2, 1008, _ADA, desktop=True),
    CardSheet("RTX 5090", 32, 209.5, 1792, _BLACKWELL, desktop=True),
    CardSheet(
        "RTX 6000 Ada", 48, 364.2, 960, "NVIDIA RTX 6000 Ada data sheet, half of the sparse figure", desktop=True
    ),
    CardSheet(
        "RTX PRO 6000 Blackwell",
        96,
        503.8,
        1792,
        "NVIDIA RTX PRO Blackwell architecture whitepaper, half of the sparse figure",
        ("RTX PRO 6000", "RTX PRO 6000 Blackwell Workstation Edition"),
        desktop=True,
    ),
    CardSheet(
        "RTX PRO 6000 Blackwell Server",
        96,
        480.0,
        1597,
        "NVIDIA RTX PRO 6000 Blackwell Server Edition data sheet (2025-12): its 120 float32 TFLOP/s x 4",
        ("RTX PRO 6000", "RTX PRO 6000 Blackwell Server Edition"),
    ),
    CardSheet("L4", 24, 121.0, 300, "NVIDIA L4 data sheet: 242 with sparsity, halved"),
    CardSheet("L40S", 48, 362.0, 864, "NVIDIA L40S data sheet"),
    CardSheet("A10G", 24, 70.0, 600, "NVIDIA A10G data sheet (AWS G5): 140 with sparsity, halved"),
    CardSheet("T4", 16, 8.1, 320, "NVIDIA T4 data sheet, float32; 256 bits x 10 Gbit/s", bfloat16=False),
    CardSheet("A100 40GB", 40, 312.0, 1555, "NVIDIA A100 data sheet", ("A100 SXM4 40GB", "A100 PCIE 40GB")),
    CardSheet(
        "A100 80GB",
        80,
        312.0,
        1935,
        "NVIDIA A100 data sheet (PCIe; SXM moves 2,039)",
        ("A100 SXM4 80GB", "A100 80GB PCIe"),
    ),
    CardSheet("H100 PCIe", 80, 756.0, 2000, "NVIDIA H100 data sheet: 1,513 with sparsity, halved"),
    CardSheet(
        "H100", 80, 989.0, 3350, "NVIDIA H100 data sheet (SXM): 1,979 with sparsity, halved", ("H100 80GB HBM3",)
    ),
    CardSheet("H200", 141, 989.0, 4800, "NVIDIA H200 data sheet: 1,979 with sparsity, halved"),
    CardSheet("B200", 180, 2250.0, 8000, "NVIDIA HGX B200 data sheet: 4,500 with sparsity, halved"),
)


@dataclass(frozen=True)
class Card:
    """What trains."""

    name: str
    memory: float | None
    """Bytes that a run may take, None where nothing says."""
    tflops: float | None
    """Dense bfloat16 throughput by the data sheet, TFLOP/s; None for a CPU, and for a card that no table has."""
    unknown: bool = False
    """A GPU whose speed nobody said."""
    bandwidth: float | None = None
    """GB/s of its memory; None where nobody says."""
    source: str = "given"
    """Where its throughput is from."""
    bfloat16: bool = True
    desktop: float = 0.0
    """Bytes taken off `memory` for screens."""

    @property
    def is_gpu(self) -> bool:
        """Whether it has memory of its own."""
        return self.tflops is not None or self.unknown


def matching(name: str) -> list[CardSheet]:
    """The rows that a name means, as a person or a driver writes it: `4090`, `NVIDIA GeForce RTX 4090`, `a100-80gb`.

    Only whole names count: a laptop's RTX 4090, an RTX 3090 Ti and a share of a card (MIG) are other cards.
    """
    wanted = _words(name)
    exact = [sheet for sheet in CARDS if wanted == _words(sheet.name)]
    return exact or [sheet for sheet in CARDS if wanted in (*map(_words, sheet.drivers), _without_size(sheet.name))]


def same_card(one: str, other: str) -> bool:
    """Whether two names, of a person or a driver, may mean one card of the table; else whether they are equal."""
    return one == other or any(sheet in matching(other) for sheet in matching(one))


def card_named(name: str, *, headless: bool) -> Card:
    """The card that a person names, as sold.

    Args:
        headless: it drives no screens.
    Raises:
        UnknownCardError: no row has that name, or several have.
    """
    found = matching(name)
    if len(found) == 1:
        sheet = found[0]
        desktop = DESKTOP_BYTES if sheet.desktop and not headless else 0.0
        return Card(
            sheet.name,
            sheet.memory - desktop,
            sheet.tflops,
            bandwidth=sheet.bandwidth,
            source=sheet.source,
            bfloat16=sheet.bfloat16,
            desktop=desktop,
        )
    known = ", ".join(sheet.name for sheet in found or CARDS)
    which = "is more than one card; say which" if found else "is not in the table of cards"
    rest = "" if found else ". For another card give --memory and --tflops (dense bfloat16, by its data sheet)"
    raise UnknownCardError(f"--card {name!r} {which}: {known}{rest}")


def card_present(device_name: str, *, total: float, free: float) -> Card:
    """The card of this machine, by the name that its driver gives it.

    Args:
        total, free: bytes of its memory.
    """
    found = sorted(matching(device_name), key=lambda sheet: abs(sheet.memory - total))
    if not found:
        return Card(device_name, free, None, unknown=True)
    sheet = found[0]
    return Card(
        device_name,
        free,
        sheet.tflops,
        bandwidth=sheet.bandwidth,
        source=sheet.source,
        bfloat16=sheet.bfloat16,
    )


def device_name(device: str) -> str:
    """What runs and plans call a device of this machine: the driver's name of a GPU, `CPU, 2 threads`."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def launch_floor(size: ModelSize, *, passes: int) -> float:
    """Seconds that the host takes to start the kernels of a step, however fast the card is.

    Args:
        passes: forward passes of one process per optimiser step.
    """
    return LAUNCHES_PER_BLOCK * size.layers * passes * LAUNCH_SECONDS


def _without_size(name: str) -> str:
    return re.sub(r" \d+gb$", "", _words(name))


def _words(name: str) -> str:
    """What counts of a name: no maker, no family, no punctuation, no case."""
    words = re.sub(r"[^a-z0-9]+", " ", re.sub(r"(\d)\s*(gb|gib)\b", r"\1gb", name.casefold())).split()
    return " ".join(word for word in words if word not in ("nvidia", "geforce", "tesla", "rtx", "generation"))
