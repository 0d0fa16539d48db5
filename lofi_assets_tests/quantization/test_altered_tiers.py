"""Every altered file is refused, and for what was altered; the honest ones hold."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lofi_assets.quantization.policy import check_tier
from lofi_assets.quantization.tier_manifest import TierName
from lofi_assets_tests.quantization.alterations import ALTERATIONS, Alteration, altered
from lofi_assets_tests.quantization.altered_bytes import FILES
from lofi_assets_tests.quantization.small_tiers import LAYOUT, MAKERS, write_small_tiers


@pytest.fixture(scope="module")
def tiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiers")
    write_small_tiers(root)
    return root


def violations(folder: Path, tiers: Path, tier: TierName) -> tuple[str, ...]:
    return check_tier(folder, tier=tier, layout=LAYOUT, baseline=tiers / "fp32").violations


def copied(tiers: Path, tier: TierName, tmp_path: Path) -> Path:
    return shutil.copytree(tiers / tier, tmp_path / tier)


def test_there_are_sixty_and_more() -> None:
    names = [alteration.name for alteration in ALTERATIONS] + [name for name, _, _ in FILES]
    assert len(names) == len(set(names)) >= 60


@pytest.mark.parametrize("tier", MAKERS)
def test_honest_files_are_accepted(tiers: Path, tier: TierName) -> None:
    assert violations(tiers / tier, tiers, tier) == ()


@pytest.mark.parametrize("alteration", ALTERATIONS, ids=lambda alteration: alteration.name)
def test_an_altered_file_is_refused_for_what_was_altered(tiers: Path, tmp_path: Path, alteration: Alteration) -> None:
    tier, component = alteration.where
    folder = copied(tiers, tier, tmp_path)
    altered(folder / f"{component}.onnx", alteration)
    found = violations(folder, tiers, tier)
    assert any(alteration.reason in text for text in found), found


@pytest.mark.parametrize(("name", "change", "reason"), FILES, ids=[name for name, _, _ in FILES])
def test_altered_bytes_are_refused_for_what_was_altered(
    tiers: Path, tmp_path: Path, name: str, change: Callable[[Path], None], reason: str
) -> None:
    folder = copied(tiers, "int8", tmp_path)
    change(folder)
    found = violations(folder, tiers, "int8")
    assert any(reason in text for text in found), found


@pytest.mark.slow
@pytest.mark.xdist_group("tiny_tiers")
def test_the_same_of_exported_tiers(tiny_tiers: Path, tmp_path: Path) -> None:
    """The alterations of the small files on those of the tiny base, where that has what they alter; its vocoder has no
    square linear layer."""
    accepted: list[str] = []
    applied: list[str] = []
    for tier in MAKERS:
        assert violations(tiny_tiers / tier, tiny_tiers, tier) == ()
    for alteration in ALTERATIONS:
        tier, component = alteration.where
        component = "transformer" if component == "vocoder" else component
        folder = copied(tiny_tiers, tier, tmp_path)
        try:
            altered(folder / f"{component}.onnx", alteration)
        except StopIteration:  # a tensor or node that the small files alone have
            shutil.rmtree(folder)
            continue
        applied.append(alteration.name)
        if not any(alteration.reason in text for text in violations(folder, tiny_tiers, tier)):
            accepted.append(alteration.name)
        shutil.rmtree(folder)
    for name, change, reason in FILES:
        folder = copied(tiny_tiers, "int8", tmp_path)
        change(folder)
        if not any(reason in text for text in violations(folder, tiny_tiers, "int8")):
            accepted.append(name)
        shutil.rmtree(folder)
    assert accepted == [] and len(applied) >= len(ALTERATIONS) - 5
