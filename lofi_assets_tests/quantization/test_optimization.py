"""What a tier is judged by where it can be run in more than one way."""

from pathlib import Path

import pytest

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.constitution.gates import Gate, judge
from lofi_assets.lofi_onnx.pipeline import CPU_PROFILE
from lofi_assets.quantization.build import TierReport
from lofi_assets.quantization.policy import cpu_profiles
from lofi_assets.quantization.quantized_tiers import COMPARED, VARIANTS, _not_finite, tier_of, worst_variant
from lofi_assets.quantization.tier_manifest import TIERS, PolicyReport
from lofi_assets_tests.metrics.stand_in_results import fidelity as distances


@pytest.mark.parametrize(
    ("bounds", "worst"),
    [
        ({"int8": 0.01, "int8.cpu": 0.02}, "int8.cpu"),
        ({"int8": 0.03, "int8.cpu": -0.02}, "int8"),
        ({"int8": 0.03, "int8.cpu": None}, "int8.cpu"),
        ({"int8": None, "int8.cpu": 0.9}, "int8"),
    ],
)
def test_int8_is_judged_by_the_worse_of_its_two_graphs_and_by_the_one_that_could_not_be_measured(
    bounds: dict[str, float | None], worst: str
) -> None:
    fidelity = {variant: distances(upper=bound) for variant, bound in ({"fp16": 0.5, "int4": None} | bounds).items()}
    assert worst_variant(fidelity, "int8") == worst
    assert worst_variant(fidelity, "fp16") == "fp16"


def test_every_tier_is_sampled_in_each_way_that_it_runs() -> None:
    assert {tier_of(variant) for variant in VARIANTS} == set(COMPARED)
    profiles = {tier: found for tier in TIERS if (found := cpu_profiles(ACE_STEP_V1.layout, tier))}
    assert {tier_of(variant) for variant in VARIANTS if variant.endswith(".cpu")} == profiles.keys()
    files = {f"{name}.onnx": component for found in profiles.values() for name, component in found.items()}
    assert all(name == CPU_PROFILE.format(component=component) for name, component in files.items())


FINITE = Gate("tiers.finite", "IV. Model Optimization", "asset", "not_finite", "==", 0, "why", asset="quantized_tiers")
"""The row that the constitution is to have."""


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([(), (), ()], "pass"),
        ([("dcae_decoder (off)",), (), ()], "fail"),
        ([(), None, ()], "inconclusive"),
    ],
)
def test_tiers_are_finite_only_if_every_one_was_asked(found: list[tuple[str, ...] | None], verdict: str) -> None:
    released = [tier for tier in TIERS if tier in COMPARED]
    policy = PolicyReport("fp16", 18, {}, 0.0, 0.0, 0, None, (), ())
    reports = [
        TierReport(tier, Path("tier"), "f" * 64, False, policy, {}, names, {})
        for tier, names in zip(released, found, strict=True)
    ]
    measured = _not_finite(reports)
    assert judge(FINITE, measured).status == verdict
    if verdict != "pass":
        assert ("fp16 dcae_decoder (off)" if verdict == "fail" else "int8 was built before") in measured["note"]
