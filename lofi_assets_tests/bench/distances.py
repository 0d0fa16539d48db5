"""What stands beside a distance, against the naive way: 64 clips to 40 of 12 windows in 128 dimensions."""

from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from lofi_assets.metrics.alignment import Pairs, relative_alignment
from lofi_assets.metrics.clip_moments import FixedSide, Moments, leave_one_out
from lofi_assets.metrics.frechet import frechet_distance
from lofi_assets.metrics.kernel import between_clips, clip_kernels
from lofi_assets_tests.bench.report import Row, interleaved
from lofi_assets_tests.metrics.clip_populations import Clips, clips_of, stacked, text_and_audio

REPEATS = 3


def rows() -> list[Row]:
    """Each pair gives one number, by the naive way and by ours."""
    random = np.random.default_rng(0)
    ours, theirs = clips_of(random, 64, d=128, shift=0.3), clips_of(random, 40, d=128)
    with threadpool_limits(1):
        return [
            _row("FAD without each clip", lambda: _each_left_out(ours, theirs), lambda: _downdated(ours, theirs)),
            _row(
                "KAD of clips and its interval",
                lambda: _pair_by_pair(ours, theirs),
                lambda: clip_kernels(theirs, ours, bandwidth=3.0).interval(),
            ),
            _row("alignment with its bound", *_alignments(random)),
        ]


def _row(what: str, naive: Callable[[], object], quick: Callable[[], object]) -> Row:
    naive_s, quick_s = interleaved(naive, quick, repeats=REPEATS)
    told = f"naive {naive_s:.3f} s, ours {quick_s:.3f} s"
    return Row(f"{what}, times faster than naive", naive_s / quick_s, "x", note=told)


def _each_left_out(ours: Clips, theirs: Clips) -> list[float]:
    windows = stacked(theirs)
    return [
        frechet_distance(np.concatenate([clip for other, clip in ours.items() if other != name]), windows)
        for name in ours
    ]


def _downdated(ours: Clips, theirs: Clips) -> list[float]:
    fixed = FixedSide.of(Moments.of([*theirs.values()]))
    return [fixed.distance(moments) for moments in leave_one_out([*ours.values()])]


def _pair_by_pair(ours: Clips, theirs: Clips) -> float:
    """The mean kernel of each two clips by subtraction; the interval would leave each clip out on top of it."""

    def kernels(x: Clips, y: Clips) -> np.ndarray:
        return np.array(
            [
                [float(np.exp(-np.square(a[:, None] - b[None]).sum(-1) / 18.0).mean()) for b in y.values()]
                for a in x.values()
            ]
        )

    return between_clips(kernels(theirs, theirs), kernels(ours, ours), kernels(theirs, ours))


def _alignments(random: np.random.Generator) -> tuple[Callable[[], object], Callable[[], object]]:
    """The bound over prompts by leaving out each, against doing so with the whole matrix of cosines."""
    meant = random.normal(size=(256, 512))
    audio, text = text_and_audio(random, meant, agreement=1.0)
    texts = [str(index) for index in range(256)]
    pairs = Pairs(audio=audio, text=text, texts=texts, styles=[[]] * 256)

    def each_left_out() -> list[float]:
        a, b = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (audio, text))
        found = []
        for left in range(256):
            cosines = np.delete(a, left, axis=0) @ np.delete(b, left, axis=0).T
            found.append(float(np.diag(cosines).mean() - cosines[~np.eye(255, dtype=bool)].mean()))
        return found

    return each_left_out, lambda: relative_alignment(generated=pairs, real=pairs, seed=0)
