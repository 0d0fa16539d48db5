"""Which clips a comparison of the tiers by ear plays: those that their FAD was measured on."""

from datetime import datetime

from lofi_assets.files.hashing import hash_of
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.tiers import TiersPlan, open_tiers_test
from lofi_assets.quantization.quantized_tiers import VARIANTS, TierSamples, tier_of
from lofi_assets.store import Store

COMPARED_BY_EAR = tuple(variant for variant in VARIANTS if tier_of(variant) in ("int8", "int4"))


def compare_tiers_by_ear(store: Store, *, seconds: float, now: datetime) -> TiersPlan:
    """Open a comparison of INT8 and INT4 with FP32 on the clips of `quantized_tiers`.

    Raises:
        ListeningError: they are not there, or of different builds.
    """
    folders = {name: store.samples / "tiers" / name for name in ("fp32", *COMPARED_BY_EAR)}
    made = {name: TierSamples.read(folder) for name, folder in folders.items()}
    keys = {found.key if found else None for found in made.values()}
    if None in keys or len(keys) > 1:
        raise ListeningError(
            f"{store.samples / 'tiers'}: the clips of the tiers are missing or of different builds; materialise "
            "quantized_tiers first"
        )
    clips = {name: {path.stem: path for path in sorted(folder.glob("*.mp3"))} for name, folder in folders.items()}
    return open_tiers_test(store, clips, about=hash_of(sorted(keys, key=str)), seconds=seconds, now=now)
