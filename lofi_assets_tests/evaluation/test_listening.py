"""Listening tests: exact statistics, a verdict few listeners cannot buy, strict answers, a page that tells nothing."""

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import soundfile

from lofi_assets.evaluation.listening_page import Clip, write_listening_page
from lofi_assets.files.typed import plain
from lofi_assets.metrics import binomial
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.listening_trials import Trial, design_effect, evaluate_trials, person_of, read_trials

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)


def upper_tail(k: int, n: int, p: float) -> float:
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize(
    ("k", "n", "p"),
    [
        (14, 20, 0.115),
        (15, 20, 0.0414),
        (32, 50, 0.0649),
        (60, 100, 0.0569),
        (61, 100, 0.0352),
        (114, 200, 0.0560),
        (115, 200, 0.0400),
    ],
)
def test_binomial_p_is_exact(k, n, p):
    assert binomial.two_sided_p(k, n) == pytest.approx(min(1.0, 2 * upper_tail(k, n, 0.5)), rel=1e-12)
    assert binomial.two_sided_p(k, n) == pytest.approx(p, abs=5e-4)
    assert binomial.two_sided_p(n - k, n) == binomial.two_sided_p(k, n)


def test_binomial_p_of_an_even_split_is_one():
    assert binomial.two_sided_p(10, 20) == 1.0


def test_equivalence_p_is_the_larger_of_two_exact_tails():
    for k in (98, 107, 116, 120):
        tails = upper_tail(k, 214, 0.4), 1 - upper_tail(k + 1, 214, 0.6)
        assert binomial.equivalence_p(k, 214, margin=0.1) == pytest.approx(max(tails), rel=1e-9)


@pytest.mark.parametrize(
    ("margin", "power", "n", "accepted"),
    [
        (0.05, 0.8, 861, None),
        (0.05, 0.9, 1092, None),
        (0.10, 0.8, 214, (98, 116)),
        (0.10, 0.9, 268, (121, 147)),
        (0.15, 0.8, 96, (42, 54)),
        (0.20, 0.8, 53, (22, 31)),
    ],
)
def test_trials_needed_for_equivalence(margin, power, n, accepted):
    assert binomial.trials_needed(margin=margin, power=power) == n
    assert accepted in (None, binomial.acceptance(n, margin=margin))


def test_fifty_trials_cannot_prove_equivalence_within_ten_percent():
    assert binomial.acceptance(50, margin=0.1) is None
    assert binomial.acceptance(100, margin=0.1) == (49, 51)


def test_interval_is_clopper_pearson():
    assert binomial.clopper_pearson(60, 100) == pytest.approx((0.4972, 0.6967), abs=1e-4)
    assert binomial.clopper_pearson(0, 10)[0] == 0.0 and binomial.clopper_pearson(10, 10)[1] == 1.0


def trials(listeners: int, each: int, *, right, kind="test", first=0) -> list[Trial]:
    """Balanced trials; `right(listener, trial)` says whether the answer is correct."""
    made = []
    for listener in range(first, first + listeners):
        for i in range(each):
            truth = "ai" if i % 2 else "real"
            other = "real" if truth == "ai" else "ai"
            answer = truth if right(listener, i) else other
            made.append(
                Trial(
                    session="s",
                    listener=f"L{listener}",
                    trial_id=f"{kind}{i}",
                    truth=truth,
                    answer=answer,
                    ts=NOON,
                    kind=kind,
                )
            )
    return made


def guessing(seed: int = 0):
    coins = np.random.default_rng(seed).integers(2, size=(500, 500))
    return lambda listener, trial: bool(coins[listener, trial])


def test_twenty_guesses_pass_p_but_are_inconclusive():
    result = evaluate_trials(trials(2, 10, right=lambda listener, i: (i // 2 + listener) % 2 == 0))
    assert result.p_value == 1.0 and result.verdict == "inconclusive"
    assert result.trials_needed >= 214 and result.trials_missing >= 194


def test_enough_guessing_listeners_are_indistinguishable():
    result = evaluate_trials(trials(20, 40, right=guessing()))
    assert result.verdict == "indistinguishable" and result.p_value > 0.05 and result.equivalence_p < 0.05
    assert result.trials_missing == 0 and abs(result.d_prime) < 0.2
    assert result.accuracy_interval[0] < 0.5 < result.accuracy_interval[1]
    assert result.human_evaluation() == {
        "evaluator_count": 20,
        "accuracy": result.accuracy,
        "p_value": result.p_value,
        "date": "2025-01-15",
    }
    json.dumps(plain(result), allow_nan=False)


def test_listeners_who_hear_it_are_distinguishable_however_few_they_are_sure_of():
    result = evaluate_trials(trials(10, 20, right=lambda _, i: i % 10 < 7))
    assert result.verdict == "distinguishable" and result.accuracy == 0.7 and result.p_value < 1e-6


def test_answers_that_hang_together_count_for_less():
    """Half the listeners always right and half always wrong average to one half, and prove nothing."""
    split = trials(20, 40, right=lambda listener, _: listener % 2 == 0)
    result = evaluate_trials(split)
    assert design_effect(split) > 30 and result.effective_trials < 30
    assert result.accuracy == 0.5 and result.verdict == "inconclusive" and result.trials_missing > 1000
    assert result.listener_interval[0] < 0.4 and result.listener_interval[1] > 0.6
    by_clip = evaluate_trials(trials(20, 40, right=lambda _, i: (i // 2) % 2 == 0))
    assert by_clip.verdict == "inconclusive" and by_clip.design_effect > 15


def test_one_listener_or_an_unbalanced_test_or_one_answer_throughout_supports_no_claim():
    alone = evaluate_trials(trials(1, 400, right=lambda _, i: (i // 2) % 2 == 0))
    assert alone.verdict == "inconclusive" and "1 listener" in alone.notes[0] and alone.listener_interval is None
    balanced = trials(20, 40, right=guessing())
    tilted = evaluate_trials([t for t in balanced if t.truth == "ai" or t.trial_id.endswith("0")])
    assert tilted.verdict != "indistinguishable" and "balance" in " ".join(tilted.notes)
    always_ai = evaluate_trials(trials(20, 40, right=lambda _, i: i % 2 == 1))
    assert (always_ai.hit_rate, always_ai.false_alarm_rate, always_ai.accuracy) == (1.0, 1.0, 0.5)
    assert always_ai.verdict == "inconclusive" and "same answer" in always_ai.notes[0]


def test_who_calls_an_obvious_fake_real_is_left_out():
    good = trials(20, 40, right=guessing())
    caught = [
        Trial(session="s", listener=f"L{i}", trial_id="c", truth="ai", answer="ai", ts=NOON, kind="control")
        for i in range(20)
    ]
    careless = trials(1, 40, right=lambda *_: True, first=99)
    missed = Trial(session="s", listener="L99", trial_id="c", truth="ai", answer="real", ts=NOON, kind="control")
    result = evaluate_trials([*good, *caught, *careless, missed])
    assert result.excluded_listeners == ("L99",) and result.n_trials == 800
    with pytest.raises(MetricError, match="missed a control"):
        evaluate_trials([*careless, missed])


ANN = "ann o'connor"
SPELLINGS = [
    ("as typed", "Ann O'Connor", True),
    ("capitals", "ANN O'CONNOR", True),
    ("another space", " Ann\u00a0 O'Connor\t", True),
    ("no space", "AnnO'Connor", True),
    ("another apostrophe", "Ann O\u2019Connor", True),
    ("no punctuation", "ann oconnor", True),
    ("a hyphen and a full stop", "Ann-O'Connor.", True),
    ("zero width", "A\u200bnn\ufeff O'\u2060Connor\u00ad", True),
    ("a joiner and a variation selector", "An\u034fn\ufe0f O'Connor", True),
    ("full-width letters", "\uff21\uff4e\uff4e O'Connor", True),
    ("another letter", "Ana O'Connor", False),
    ("a number", "Ann O'Connor 2", False),
    ("an accent", "Ann O'C\u00f3nnor", False),
]


@pytest.mark.parametrize(("typed", "same"), [case[1:] for case in SPELLINGS], ids=[case[0] for case in SPELLINGS])
def test_a_name_typed_in_another_way_is_the_same_listener(typed, same):
    assert (person_of(typed) == person_of(ANN)) is same


@pytest.mark.parametrize(
    ("one", "other"), [("Ren\u00e9e", "Rene\u0301e"), ("\u30d5\u309a", "\u30d7"), ("Stra\u00dfe", "STRASSE")]
)
def test_a_name_in_another_unicode_form_is_the_same_listener(one, other):
    assert person_of(one) == person_of(other) != ""


def test_one_listener_in_eight_spellings_supports_no_claim():
    spellings = [typed for _, typed, same in SPELLINGS if same][:8]
    alone = trials(8, 40, right=guessing(), kind="test")
    told = [replace(t, listener=spellings[int(t.listener[1:])], trial_id=f"{t.listener}-{t.trial_id}") for t in alone]
    assert evaluate_trials(alone).evaluator_count == 8
    result = evaluate_trials(told)
    assert result.evaluator_count == 1 and result.human_evaluation()["evaluator_count"] == 1
    assert result.verdict == "inconclusive" and "1 listener" in result.notes[0] and result.listener_interval is None
    (name,) = result.listeners
    assert all(" ".join(spelling.split()) in name for spelling in spellings)
    assert evaluate_trials(told[::-1]) == result


def test_the_report_names_each_listener_as_counted():
    result = evaluate_trials(trials(3, 40, right=guessing()))
    assert result.listeners == ("L0", "L1", "L2") and plain(result)["listeners"] == ["L0", "L1", "L2"]


def test_who_missed_a_control_is_left_out_under_any_spelling():
    good = trials(20, 40, right=guessing())
    missed = Trial(session="s", listener="l19 ", trial_id="c", truth="ai", answer="real", ts=NOON, kind="control")
    result = evaluate_trials([*good, missed])
    assert (result.evaluator_count, result.excluded_listeners) == (19, ("L19 (also l19)",))


def test_a_result_does_not_depend_on_the_order_of_the_answers():
    made = trials(6, 30, right=guessing())
    assert evaluate_trials(made) == evaluate_trials(made[::-1])


def test_no_trials_is_an_error_not_a_pass():
    with pytest.raises(MetricError, match="collect more"):
        evaluate_trials([])


@pytest.fixture
def files(tmp_path):
    """Six clips of different rates, lengths, levels and channels."""
    made = []
    for i in range(6):
        rate = (44100, 48000, 22050)[i % 3]
        t = np.arange(round((4.0 + 0.3 * i) * rate)) / rate
        audio = 0.05 * (i + 1) * np.sin(2 * np.pi * (200 + 40 * i) * t) * (1 + 0.5 * np.sin(9 * t))
        path = tmp_path / f"{'generated' if i < 3 else 'human'}-{i}.flac"
        soundfile.write(path, np.stack([audio, audio], axis=1) if i % 2 else audio, rate)
        made.append(path)
    return made


def written(files, directory, **options):
    ai = [Clip(path=p, style_id=s) for p, s in zip(files[:3], ("CORE-01", "CORE-02", "CORE-02"), strict=True)]
    real = [Clip(path=p, style_id=s) for p, s in zip(files[3:5], ("CORE-01", "CORE-02"), strict=True)]
    options = {"ai_clips": ai, "real_clips": real, "seed": 7, "controls": [Clip(path=files[5])], **options}
    return write_listening_page(directory, **options)


def test_the_page_gives_nothing_away(files, tmp_path):
    made = written(files, tmp_path / "test")
    assert (made.n_pairs, made.n_controls, len(made.left_out)) == (2, 1, 1)
    page = made.page.parent
    served = sorted(p.relative_to(page).as_posix() for p in page.rglob("*") if p.is_file())
    assert "truth.json" not in " ".join(served) and made.truth.parent == page.parent
    text = (page / "index.html").read_text() + (page / "manifest.json").read_text()
    for given_away in ("generated", "human-", "CORE-", "truth", str(tmp_path), "http://", "https://"):
        assert given_away not in text, given_away
    audio = list((page / "audio").iterdir())
    assert len(audio) == 5 and all(re.fullmatch(r"[0-9a-f]{16}\.wav", p.name) for p in audio)
    assert len({p.stat().st_size for p in audio}) == 1


def test_clips_are_alike_in_loudness_length_rate_and_channels(files, tmp_path):
    import pyloudnorm

    made = written(files, tmp_path / "test", seconds=3.0)
    levels = []
    for path in (made.page.parent / "audio").iterdir():
        samples, rate = soundfile.read(path)
        assert (samples.shape, rate) == ((3 * 48000, 2), 48000)
        assert np.abs(samples).max() <= 10 ** (-1 / 20) + 1e-4 and np.abs(samples[0]).max() < 1e-3
        levels.append(pyloudnorm.Meter(rate).integrated_loudness(samples))
    assert max(levels) - min(levels) < 0.1


def test_a_test_is_reproducible_and_a_running_one_is_not_overwritten(files, tmp_path):
    first, second = (written(files, tmp_path / name) for name in ("a", "b"))
    assert first.page.read_bytes() == second.page.read_bytes()
    assert first.truth.read_bytes() == second.truth.read_bytes()
    with pytest.raises(MetricError, match="under way"):
        written(files, tmp_path / "a")


def test_styles_without_a_partner_or_silent_clips_make_no_test(files, tmp_path):
    with pytest.raises(MetricError, match="no style has both"):
        written(files, tmp_path / "a", real_clips=[Clip(path=files[3], style_id="CORE-07")])
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(48000 * 4), 48000)
    with pytest.raises(MetricError, match=r"silent\.wav"):
        written(files, tmp_path / "b", controls=[Clip(path=silent)])


@pytest.fixture
def answered(files, tmp_path):
    """A page and one listener's answers to it as the page would write them."""
    made = written(files, tmp_path / "test")
    manifest = made.page.parent / "manifest.json"
    digest = json.loads(made.truth.read_text())["manifest_sha256"]
    rows = [
        {
            "session": "s1",
            "listener": "ann",
            "trial_id": trial["trial_id"],
            "order": order,
            "answer": "ai",
            "confidence": 3,
            "rt_ms": 4000,
            "plays": 1,
            "ts": "2025-01-15T12:00:00.000Z",
            "manifest_sha256": digest,
        }
        for order, trial in enumerate(json.loads(manifest.read_text())["trials"])
    ]
    return made, rows


def answers(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_answers_are_joined_with_the_truth(answered, tmp_path):
    made, rows = answered
    read = read_trials(answers(tmp_path / "a.jsonl", rows), truth_path=made.truth)
    assert len(read) == 5 and sum(t.correct for t in read) == 3
    assert [t.kind for t in read].count("control") == 1 and {t.style_id for t in read} >= {"CORE-01", "CORE-02"}
    result = evaluate_trials(read)
    assert (result.n_trials, result.hit_rate, result.false_alarm_rate, result.date) == (4, 1.0, 1.0, "2025-01-15")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "maybe"}, "'ai' or 'real'"),
        ({"confidence": 9}, "1 to 5"),
        ({"confidence": True}, "wrong type"),
        ({"trial_id": "0000"}, "not in the truth file"),
        ({"ts": "yesterday"}, "yesterday"),
        ({"listener": " "}, "empty"),
        ({"listener": "\u200b\u2060"}, "empty"),
        ({"listener": "?!"}, "a name has a letter or a digit"),
        ({"truth": "ai"}, "unknown fields truth"),
        ({"manifest_sha256": "0" * 64}, "another listening page"),
        ({"order": None}, "wrong type"),
    ],
)
def test_a_bad_answer_is_refused_with_its_line(answered, tmp_path, change, message):
    made, rows = answered
    rows[2] = {**rows[2], **change}
    with pytest.raises(MetricError, match=message) as failure:
        read_trials(answers(tmp_path / "a.jsonl", rows), truth_path=made.truth)
    assert "a.jsonl, line 3" in str(failure.value)


def test_second_answers_missing_fields_and_broken_files_are_refused(answered, tmp_path):
    made, rows = answered
    with pytest.raises(MetricError, match=r"line 6.*already answered"):
        read_trials(answers(tmp_path / "a.jsonl", [*rows, rows[0]]), truth_path=made.truth)
    with pytest.raises(MetricError, match=r"line 6.*' Ann' already answered .*, as 'ann': remove one line"):
        read_trials(answers(tmp_path / "a.jsonl", [*rows, {**rows[0], "listener": " Ann"}]), truth_path=made.truth)
    with pytest.raises(MetricError, match=r"line 1.*lacks answer"):
        read_trials(
            answers(tmp_path / "b.jsonl", [{k: v for k, v in rows[0].items() if k != "answer"}]), truth_path=made.truth
        )
    (tmp_path / "c.jsonl").write_text("{}\n[1]\n{")
    with pytest.raises(MetricError, match=r"c\.jsonl, line 1"):
        read_trials(tmp_path / "c.jsonl", truth_path=made.truth)
    with pytest.raises(MetricError, match="not the truth file"):
        read_trials(tmp_path / "a.jsonl", truth_path=made.page.parent / "manifest.json")
    with pytest.raises(MetricError, match="cannot be read"):
        read_trials(tmp_path / "absent.jsonl", truth_path=made.truth)
