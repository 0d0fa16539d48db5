"""Clips side by side: the same results in the same order, on the threads that there are."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lofi_assets.metrics.clip_measures import measured_clips
from lofi_assets.metrics.embedding import embed_files
from lofi_assets.metrics.musicnn import MusicnnEmbedder
from lofi_assets.workers.side_by_side import AT_ONCE, side_by_side


@pytest.fixture(params=[1, 2, 16])
def processors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    number: int = request.param
    monkeypatch.setenv("OMP_NUM_THREADS", str(number))
    return number


def test_results_are_in_the_order_of_the_items(processors: int) -> None:
    assert side_by_side(lambda item: item * item, range(20)) == [item * item for item in range(20)]
    assert side_by_side(str, []) == []


def test_as_many_are_at_work_at_once_as_there_are_processors(processors: int) -> None:
    together = min(processors, AT_ONCE)
    meeting = threading.Barrier(together, timeout=20)  # broken, so an error, where fewer come

    side_by_side(lambda item: meeting.wait(), range(3 * together))


def test_with_one_processor_nothing_leaves_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert set(side_by_side(lambda item: threading.get_ident(), range(3))) == {threading.get_ident()}


def test_the_first_that_fails_is_told_and_what_has_not_begun_is_left(processors: int) -> None:
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        if item > 2:
            time.sleep(0.05)  # so that the failure is heard of before all of them have begun
        if item >= 2:
            raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 2"):
        side_by_side(work, range(200))
    assert len(begun) < 200


def test_the_threads_of_torch_are_shared_and_given_back(processors: int) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(8)
        within = set(side_by_side(lambda item: torch.get_num_threads(), range(8)))
        assert within == {8 // min(processors, AT_ONCE)}
        assert torch.get_num_threads() == 8
        later = threading.Thread(target=lambda: within.add(torch.get_num_threads()))
        later.start()
        later.join()
        assert 8 in within
    finally:
        torch.set_num_threads(before)


def test_progress_is_told_of_every_item(processors: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="lofi_assets.progress"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("lofi_assets.progress.WORTH_A_LINE_S", 0.0)
        side_by_side(str, range(5), label="measuring")
    assert "measuring: 5 of 5 clips" in caplog.text


def test_clips_embedded_and_measured_side_by_side_have_the_bits_of_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [tmp_path / f"{beat}.wav" for beat in (8_000, 11_000, 14_000)]
    for beat, clip in zip((8_000, 11_000, 14_000), clips, strict=True):
        drums = np.random.default_rng(beat).standard_normal(4 * 16_000) * np.exp(-np.arange(4 * 16_000) % beat / 800)
        soundfile.write(clip, 0.2 * drums, 16_000)
    embedder, found = MusicnnEmbedder(), []
    for processors in (1, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(processors))
        cache = tmp_path / str(processors)
        windows = embed_files(clips, embedder, cache, progress=False)
        measured = measured_clips(clips, seconds=None, cache_dir=cache, label="", progress=False)
        found.append(([windows[clip].tobytes() for clip in clips], [measured[clip] for clip in clips]))
    assert found[0] == found[1]
    assert len({clip.panel.loudness_lufs for clip in found[0][1] if clip.panel}) == len(clips)
