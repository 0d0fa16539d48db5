"""What the gates see of the samples' checks: verdicts, never a pass for what was not measured."""

from dataclasses import replace
from typing import Any

import pytest

from lofi_assets.constitution.gates import judge, load_gates
from lofi_assets.evaluation import sample_gates
from lofi_assets.evaluation.measured import Marks
from lofi_assets.files.typed import parsed, plain
from lofi_assets.metrics.results import Evaluation, NoiseDistances, TagAlignment
from lofi_assets.metrics.sample_checks import (
    COPY_FROM,
    Adherence,
    CheckedClip,
    Copies,
    CopyFound,
    Diversity,
    Followed,
    SampleChecks,
    Signal,
)
from lofi_assets_tests.metrics.stand_in_results import EVALUATION, evaluation

GATES = {gate.id: gate for gate in load_gates() if gate.asset == "quality_metrics"}
BESIDE_FAD = {
    "quality.copies",
    "quality.artefacts",
    "quality.nearness",
    "quality.repeats",
    "quality.diversity",
    "quality.signal",
    "quality.tempo",
    "quality.adherence",
}


def checks(**changes: Any) -> SampleChecks:
    """Of eight clips that pass everything."""
    clip = CheckedClip(
        file="000.mp3",
        style_id="CORE-01",
        bpm_asked=80,
        bpm_found=40.2,
        key_asked=None,
        key_found="A minor",
        artefacts=(),
        outside=(),
        nearest=CopyFound(similarity=0.6, recording="rain_01", at_s=0.0, of_s=12.0, pitch=0.0, tempo=1.0),
        tag_auc=0.7,
    )
    nothing = Followed(asked=0, right=0, others=None)
    parts: dict[str, Any] = {
        "clips": (clip,),
        "copies": Copies(
            similarity=0.6, validation=0.65, nearness_p=0.5, distance=5.0, validation_distance=5.0, n_recordings=48
        ),
        "diversity": Diversity(
            similarity=0.58,
            pair=("000.mp3", "001.mp3"),
            reference_similarity=0.6,
            spread=10.0,
            reference_spread=10.0,
            over_reference=1.0,
        ),
        "signal": Signal(clips_with_artefacts=0, share_outside=0.0, ranges={"loop": (0.5, 0.8)}, n_real=48),
        "adherence": Adherence(
            tempo=Followed(asked=8, right=7, others=0.1),
            real_tempo=Followed(asked=8, right=8, others=0.0),
            relative_tempo=0.775,
            key=nothing,
            real_key=nothing,
        ),
    }
    return SampleChecks(**{**parts, **changes})


def judged(found: SampleChecks | None, **changes: Any) -> Evaluation:
    return replace(evaluation(**changes), checks=found)


def verdicts(found: Evaluation, *others: Evaluation) -> dict[str, str]:
    measured = sample_gates.values(found, [found, *others])
    return {name: judge(GATES[name], measured.get(GATES[name].measure)).status for name in sorted(BESIDE_FAD)}


def test_every_gate_beside_fad_has_its_measure_and_passes_for_sound_samples() -> None:
    assert {GATES[name].measure for name in BESIDE_FAD} == set(sample_gates.values(judged(checks()), []))
    assert verdicts(judged(checks())) == dict.fromkeys(sorted(BESIDE_FAD), "pass")


def test_what_an_earlier_version_did_not_measure_passes_nowhere() -> None:
    assert set(verdicts(judged(None)).values()) == {"inconclusive"}
    earlier = {name: value for name, value in EVALUATION.items() if name != "checks"}
    assert parsed(Evaluation, earlier, where="test", remedy="").checks is None
    assert sample_gates.values(None, []) == {}, "no checkpoint, no measure: the gates find nothing"
    stored = parsed(Evaluation, plain(judged(checks())), where="test", remedy="")
    assert stored.checks == checks()


@pytest.mark.parametrize("part", ["copies", "diversity", "signal", "adherence"])
def test_a_number_that_could_not_be_taken_is_inconclusive(part: str) -> None:
    sound = getattr(checks(), part)
    kinds: dict[str, tuple[str, ...]] = {
        "copies": ("similarity", "nearness_p"),
        "diversity": ("similarity", "over_reference"),
    }
    kinds |= {"signal": ("clips_with_artefacts", "share_outside"), "adherence": ("relative_tempo",)}
    lost = replace(sound, **dict.fromkeys(kinds[part], None), note="why")
    found = verdicts(judged(checks(**{part: lost})))
    assert list(found.values()).count("inconclusive") == len(kinds[part]), found


def test_an_untrained_encoder_gives_neither_nearness_nor_diversity() -> None:
    found = verdicts(judged(checks(), trained=False))
    assert {name for name, status in found.items() if status == "inconclusive"} == {
        "quality.nearness",
        "quality.diversity",
    }


@pytest.mark.parametrize(
    ("tempo", "auc", "better"),
    [(8, 0.41, True), (7, 0.45, True), (7, 0.42, False), (8, 0.38, False), (6, 0.5, False), (7, 0.41, False)],
)
def test_a_model_follows_better_by_one_measure_and_none_worse(tempo: int, auc: float, better: bool) -> None:
    best = judged(checks())
    followed = replace(checks().adherence, tempo=Followed(asked=8, right=tempo, others=0.1))
    tags = TagAlignment(auc=auc, lower=None, reference_auc=0.55, n_clips=8, n_unmapped=0)
    other = replace(judged(checks(adherence=followed)), checkpoint_id="epoch=0-step=160_lora", tag_alignment=tags)
    assert sample_gates.follows_better(other, best) is better
    assert verdicts(best, other)["quality.adherence"] == ("fail" if better else "pass")
    assert not sample_gates.follows_better(judged(None), best)


def test_where_held_out_music_reads_as_a_copy_a_sample_that_is_no_nearer_is_neither() -> None:
    for similarity, validation, verdict in ((0.8, 0.82, "inconclusive"), (0.95, 0.82, "fail"), (0.7, 0.82, "pass")):
        found = replace(checks().copies, similarity=similarity, validation=validation)
        assert verdicts(judged(checks(copies=found)))["quality.copies"] == verdict


def test_people_see_which_sample_is_which_track() -> None:
    clip = replace(checks().clips[0], nearest=replace(checks().clips[0].nearest, similarity=0.95))
    copied = judged(checks(clips=(clip,), copies=replace(checks().copies, similarity=0.95)))
    verdict = judge(GATES["quality.copies"], sample_gates.values(copied, [])["copy_similarity"])
    assert verdict.status == "fail"
    assert "1 of 1 samples; nearest: 000.mp3 at 0 s to rain_01 at 12 s; validation tracks reach 0.65" in verdict.text
    assert GATES["quality.copies"].limit == COPY_FROM


def test_rows_plots_and_styles_show_adherence_beside_fad() -> None:
    marks = Marks("k", judged(checks()), NoiseDistances())
    rows = sample_gates.beside(
        [{"step": 80}, {"step": 0}, {"step": 40}], {80: judged(checks()), 40: judged(None)}, marks
    )
    assert [row["tempo"] for row in rows] == ["7 of 8", "7 of 8", ""] and rows[0]["artefacts"] == 0
    drawn = sample_gates.drawn({80: judged(checks()), 160: judged(checks())}, marks)
    assert list(drawn) == ["tempo by step", "tags by step"] and drawn["tempo by step"]().startswith(b"\x89PNG")
    assert sample_gates.drawn({80: judged(None)}, None) == {}
    assert sample_gates.by_style(checks()) == [
        {"style": "CORE-01", "clips": 1, "tempo": "1 of 1", "tag_auc": 0.7, "sound": 1}
    ]
    assert sample_gates.numbers(judged(checks()))["tempo_right"] == 7
