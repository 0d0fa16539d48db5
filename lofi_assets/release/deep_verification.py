"""`lofi verify --deep`: what a release says of itself, measured again from the files that somebody has.

What belongs here: which measurements there are, and what each came to. What does not: how they are taken
(`deep_adapter.py`, `deep_tiers.py`), and files, signature, chain and gates (`verification.py`), which come first: what
was altered on the way is not measured. Nothing of a release is executed but its graphs, by ONNX Runtime.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lofi_assets.release.files import PARTS, Part, ReleaseRecord, release_name

Status = Literal["same", "differs", "not measured"]
NOT_CARRIED = (
    "FAD, KAD and CLAP of the checkpoint's samples: they are measured against the validation tracks, and a release "
    "carries neither those tracks nor samples that are named after them. The numbers are in the evidence.",
    "FAD of the tiers over FP32's, as on record: it needs the same tracks. With --fad-pairs the tolerance is asked "
    "again, of other prompts and another reference (tiers.fad above).",
    "The listening test: only people can repeat it.",
)
"""What nobody who has only the release can measure."""
REPOSITORIES, FORMS, MERGE, MERGED_FILE = "release.repositories", "adapter.forms", "merge.parity", "merged.file"
MEASURED_OF: Mapping[Part, tuple[str, ...]] = {
    "adapter": (FORMS, MERGE),
    "tiers": ("tiers.policy", "tiers.adapter", "tiers.snr", "tiers.fad", "bundle.parity", "bundle.samples"),
    "merged": (MERGED_FILE,),
}
"""What a repository is measured for."""


@dataclass(frozen=True)
class MeasuredAgain:
    """One measurement."""

    about: str
    status: Status
    """"not measured" never counts as holding."""
    recorded: str = ""
    measured: str = ""
    text: str = ""
    """How, or why not and what it takes."""


@dataclass(frozen=True)
class FadAgain:
    """How the tiers' FAD is to be measured."""

    pairs: int
    """Clips of FP32 and of each variant."""
    reference: Path | None = None
    """Folder of music that both are compared with; None: FP32's clips of the release's other prompts."""
    encoder_weights: Path | None = None
    """Of the encoder that the release names, where it is not shipped."""


@dataclass(frozen=True)
class Deep:
    """Everything that was measured again."""

    measured: tuple[MeasuredAgain, ...]

    @property
    def differs(self) -> bool:
        """Whether a number is not what the release says."""
        return any(found.status == "differs" for found in self.measured)

    @property
    def complete(self) -> bool:
        """Whether every measurement was taken, and there is one."""
        return bool(self.measured) and all(found.status != "not measured" for found in self.measured)


def compared(
    about: str, *, recorded: float | None, measured: float | None, within: float, unit: str = "", text: str = ""
) -> MeasuredAgain:
    """Two numbers beside each other.

    Args:
        within: largest difference at which they count as the same; the text says why it is allowed.
    """
    was, now = _shown(recorded, unit), _shown(measured, unit)
    if recorded is None or measured is None:
        missing = "on record" if recorded is None else "measured here"
        return MeasuredAgain(about, "not measured", was, now, f"no number is {missing}. {text}".strip())
    status: Status = "same" if abs(recorded - measured) <= within else "differs"
    return MeasuredAgain(about, status, was, now, f"within {within:g}{f' {unit}' if unit else ''}. {text}".strip())


def _shown(number: float | None, unit: str) -> str:
    return "none" if number is None else f"{number:.4g}{f' {unit}' if unit else ''}"


def measure_again(
    folders: Mapping[Part, Path],
    records: Mapping[Part, ReleaseRecord],
    *,
    base: Path | None,
    scratch: Path,
    fad: FadAgain | None = None,
) -> Deep:
    """Measure what can be measured of a release that holds by its files.

    Args:
        folders: the repositories that are there.
        base: folder of the base model that the adapter was trained on; None leaves unmeasured what it takes.
        scratch: an empty folder, with room for a merged model and its FP32 graphs.
        fad: how the tiers' FAD is to be measured; None leaves it unmeasured.
    """
    from lofi_assets.release.deep_adapter import adapter_again
    from lofi_assets.release.deep_merged import merged_again
    from lofi_assets.release.deep_tiers import tiers_again

    found = [*_not_given(records)]
    merged: Path | None = None
    if "adapter" in folders:
        again, merged = adapter_again(folders["adapter"], records["adapter"], base=base, scratch=scratch)
        found += again
    if "tiers" in folders:
        found += tiers_again(folders["tiers"], records["tiers"], merged=merged, scratch=scratch, fad=fad)
    if "merged" in folders:
        found.append(merged_again(folders["merged"], records["merged"], merged=merged))
    return Deep(tuple(found))


def _not_given(records: Mapping[Part, ReleaseRecord]) -> Iterator[MeasuredAgain]:
    """Whether every repository of the release is there; what each one that is not would have been measured for."""
    named = next((record.release for record in records.values()), "")
    if named and release_name({part: record.files for part, record in records.items()}) == named:
        yield MeasuredAgain(REPOSITORIES, "same", named[:12], named[:12], "their files make up the release's name")
        return
    absent = [part for part in PARTS if part not in records]
    known = [part for part in absent if part != "merged" or absent == ["merged"]]
    for part in known:
        text = f"the repository {part} of this release was not given; name it too"
        yield from (MeasuredAgain(about, "not measured", text=text) for about in MEASURED_OF[part])
    text = f"this is not the whole release; not given: {', '.join(known)}"
    if known != ["merged"]:
        text += ". Whether a merged file belongs to it is known when adapter and tiers are given"
    yield MeasuredAgain(REPOSITORIES, "not measured", named[:12] or "none", text=text)
