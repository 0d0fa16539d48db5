"""Any two folders of audio measured against each other, without the platform around them.

    from lofi_assets.measure import fad
    fad("real/", "generated/").result.value

`fad`, `kad`, `clap`, `copies` and `compare` are also commands of `lofi`. What belongs here: finding the files of a
folder, which encoder hears them, and what a result has to carry so that somebody else can read it. What does not: the
formulas (`metrics/`), fingerprints (`audio/fingerprint.py`).
"""

from lofi_assets.measure.copied import copies
from lofi_assets.measure.distances import compare, fad, kad
from lofi_assets.measure.prompted import clap

__all__ = ["clap", "compare", "copies", "fad", "kad"]
