"""Pages of the checkpoints: everything on record is on them, what was not measured is said to be so, and nothing that
others wrote is markup."""

import io
import re
import shutil
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pytest
import soundfile
from click.testing import CliRunner

from lofi_assets.cli.main import main
from lofi_assets.constitution.gates import load_constitution, load_gates
from lofi_assets.evaluation.human_evaluation import HumanEvaluation, TestOnRecord
from lofi_assets.evaluation.measured import Measured, read_measured, write_measured
from lofi_assets.evaluation.reports.pages import (
    ReportError,
    comparison_path,
    page_for,
    page_to_send,
    report_links,
    write_reports,
)
from lofi_assets.evaluation.reports.sounds import Part, strip
from lofi_assets.files.hashing import sha256_file
from lofi_assets.listening import ledger
from lofi_assets.metrics.results import Aesthetics, EncoderProof, ProofCheck
from lofi_assets.records import QualityMetrics
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import DIFFUSERS_WEIGHTS
from lofi_assets.training.checkpoints.manifest import update_record
from lofi_assets_tests.evaluation.stand_in_checkpoints import NAMES, NASTY, TRACK, put_evaluated
from lofi_assets_tests.metrics.stand_in_results import evaluation, listening_result


@pytest.fixture(scope="module")
def put(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Written once; its pages too, and with them the spectrograms."""
    made = put_evaluated(Store(tmp_path_factory.mktemp("put") / "data"))
    write_reports(made)
    return made


@pytest.fixture
def evaluated(put: Store, store: Store) -> Store:
    shutil.copytree(put.root, store.root)
    return store


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_every_gate_is_on_a_checkpoints_page_with_its_verdict(evaluated: Store) -> None:
    page = text_of(write_reports(evaluated)[NAMES[0]])
    judging = ("lora_checkpoints", "generated_samples", "quality_metrics", "human_evaluation")
    asked = [gate.id for gate in load_gates() if gate.asset in judging and gate.scope == "asset"]
    rows = dict(re.findall(r'<code>([a-z_.]+)</code></td><td[^>]*><span class="badge (\w+)">', page))
    assert sorted(rows) == sorted(asked) and len(asked) > 15
    assert rows["quality.fad"] == "inconclusive" and rows["quality.fad_relative"] == "fail"
    assert rows["quality.copies"] == "pass" and rows["human.p_value"] == "inconclusive"
    assert rows["samples.complete"] == "inconclusive", "nothing was recorded of it"


def test_what_others_wrote_is_text_on_every_page(evaluated: Store) -> None:
    pages = [*write_reports(evaluated).values(), comparison_path(evaluated)]
    for page in pages:
        text = text_of(page)
        assert text.count("<script>") == 1 and NASTY not in text and "onerror=y" not in re.sub(r">[^<]*<", "><", text)
        assert "&lt;script&gt;alert(&quot;x&quot;)" in text
        assert not re.search(r'(?:src|href)="(?!data:)[a-z]+:', text), "nothing is taken from elsewhere"
    assert "Tracks by &lt;script&gt;" in text_of(pages[0]), "the credit that the licence asks for"


def test_players_play_files_that_are_there_the_nearest_track_from_where_it_agrees(evaluated: Store) -> None:
    page = write_reports(evaluated)[NAMES[0]]
    sources = [unquote(source) for source in re.findall(r'<audio[^>]*src="([^"]+)"', text_of(page))]
    assert len(sources) == 4 and all((page.parent / source.partition("#")[0]).is_file() for source in sources)
    assert [source.partition("#")[2] for source in sources] == ["", "t=0.0,10.0", "t=12.0,22.0", ""]
    compared = re.findall(r'<audio[^>]*src="([^"]+)"', text_of(comparison_path(evaluated)))
    assert len(compared) == 4, "the base, two steps, and the real track"


def test_what_was_measured_of_a_clip_is_on_the_page(evaluated: Store) -> None:
    page = text_of(write_reports(evaluated)[NAMES[0]])
    for said in (
        "right: 80 BPM asked, 40.2 BPM found, confidence 0.41",
        "no copy: 0.60 with rain_01",
        "-14.2 LUFS",
        "<dt>artefacts</dt><dd>none found</dd>",
        "7 of 8",
        "22.92 to 36.50",
        str(load_constitution()["version"]),
        "c" * 64,
        "seed 7000",
    ):
        assert said in page, said


def test_what_was_not_measured_is_said_and_is_no_zero(evaluated: Store) -> None:
    about = QualityMetrics(checkpoint_id=NAMES[0], evaluation_date=datetime(2026, 1, 2, tzinfo=UTC), fad_score=None)
    nothing = evaluation(
        fad=dict.fromkeys(("value", "interval", "floor", "over_floor", "infinity", "real_by_clip"))
        | dict.fromkeys(("kad", "kad_interval", "kad_floor"))
        | {"by_clip": {}, "infinity_note": "", "enough_windows": False, "note": "no sound"}
        | dict.fromkeys(("n_clips", "n_windows", "n_reference_clips", "n_reference_windows"), 0),
        tag_alignment=None,
    )
    write_measured(evaluated, {NAMES[0]: Measured("a.b", about, nothing)})
    evaluated.metadata("quality_marks.json").unlink()
    page = text_of(write_reports(evaluated)[NAMES[0]])
    numbers = page.partition('id="numbers"')[2].partition("</table>")[0]
    assert numbers.count("not measured") >= 9 and "no sound" in numbers
    assert "FAD (musicnn): not measured of any model" in page and "share in tempo: not measured of any" in page
    assert "are not those that the numbers are of" in page, "other clips than were measured"
    compared = text_of(comparison_path(evaluated))
    assert "The base was not measured" in compared and f"Not measured yet: {NAMES[1]}" in compared
    assert ">0.00<" not in numbers + compared.partition('id="models"')[2].partition("</table>")[0]


def test_what_people_heard_is_on_the_page_of_the_checkpoint_that_they_heard(evaluated: Store) -> None:
    asked = TestOnRecord(test="ab12", verdict="indistinguishable", lifted="", note=f"ended {NASTY}")
    heard = listening_result(look=3, looks=3, adjusted_p=0.6)
    HumanEvaluation(NAMES[1], "final look", heard, (asked,), "").write(evaluated)
    assert "Nobody was asked" in text_of(write_reports(evaluated)[NAMES[1]]), "the ledger knows no such test"
    weights = evaluated.checkpoints / NAMES[1] / DIFFUSERS_WEIGHTS
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    now = datetime(2026, 1, 3, tzinfo=UTC)
    about = {"kind": "ai_or_real", "about": sha256_file(weights), "name": NAMES[1]}
    ledger.record(evaluated, at=now, test="ab12", event="opened", **about)
    pages = write_reports(evaluated)
    assert "51.7% right (45.0% to 58.0%; guessing is 50 %)" in text_of(pages[NAMES[1]])
    assert "Nobody was asked about this checkpoint" in text_of(pages[NAMES[0]])
    assert re.search(r"human.p_value</code></td><td[^>]*><span class=\"badge pass", text_of(pages[NAMES[1]]))
    assert NASTY not in text_of(pages[NAMES[1]])
    weights.write_bytes(b"other weights of that name")
    assert "Nobody was asked" in text_of(write_reports(evaluated)[NAMES[1]])


def test_numbers_of_weights_that_were_trained_again_are_said_to_be_others(evaluated: Store) -> None:
    update_record(evaluated.checkpoints, NAMES[0], timestamp=datetime(2026, 1, 4, tzinfo=UTC))
    pages = write_reports(evaluated)
    assert "are not those that the numbers are of" in text_of(pages[NAMES[0]])
    assert "are not those that the numbers are of" not in text_of(pages[NAMES[1]])
    assert "lie there than were measured: Step 80." in text_of(comparison_path(evaluated))


def test_scores_of_aesthetics_are_advisory_and_say_what_their_weights_proved(evaluated: Store) -> None:
    page = write_reports(evaluated)[NAMES[0]]
    assert "Aesthetics: no scorer is named by the profile" in text_of(page)
    file = f"000_{TRACK}.mp3"
    scored = Aesthetics(
        scorer="audiobox_aesthetics",
        version="0.0.4",
        weights_sha256="7" * 64,
        trained=False,
        proof=EncoderProof(checks=(ProofCheck(name="weights", value=None, passed=False, told=f"unknown {NASTY}"),)),
        clips={file: {"CE": 6.14, "CU": None, "PC": 2.0, "PQ": 7.5}},
        means={"CE": 6.14, "CU": None, "PC": 2.0, "PQ": 7.5},
    )
    known = read_measured(evaluated)
    item = replace(known[NAMES[0]].evaluation, aesthetics=scored)
    write_measured(evaluated, {**known, NAMES[0]: replace(known[NAMES[0]], evaluation=item)})
    text = text_of(write_reports(evaluated)[NAMES[0]])
    assert "Advisory: audiobox_aesthetics, 1 to 10. No gate reads it; its weights did not prove themselves" in text
    assert "content enjoyment 6.1, content usefulness <span" in text and "by unproven weights" in text
    assert NASTY not in text


def test_unchanged_records_write_nothing_and_a_page_of_a_checkpoint_that_is_gone_goes(evaluated: Store) -> None:
    pages = write_reports(evaluated)
    old = comparison_path(evaluated).with_name("epoch=0-step=40_lora.html")
    old.write_text("old", encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in (*pages.values(), comparison_path(evaluated))}
    assert write_reports(evaluated) == pages
    assert {path: path.stat().st_mtime_ns for path in before} == before and not old.exists()


def test_a_page_to_be_sent_has_its_audio_inside(evaluated: Store) -> None:
    page = page_to_send(evaluated, "80")
    sources = re.findall(r'<audio[^>]*src="data:audio/mpeg;base64,([^"]+)"', page)
    assert page.count("<audio") == len(sources) == 4 and "copy at 96 kbit/s" in page
    seconds = [soundfile.info(io.BytesIO(b64decode(source))).duration for source in sources]
    assert seconds == pytest.approx([12.0, 10.0, 10.0, 20.0], abs=0.1)


def test_broken_records_cost_the_pages_and_say_so(evaluated: Store) -> None:
    evaluated.metadata("human_evaluation.json").write_text("[", encoding="utf-8")
    links, why = report_links(evaluated, NAMES[1])
    assert set(links.values()) == {None} and "human_evaluation.json" in why


def test_a_clip_that_holds_no_audio_is_said_and_stops_nothing(evaluated: Store) -> None:
    path = evaluated.samples / NAMES[0] / f"000_{TRACK}.mp3"
    path.write_bytes(b"no audio")
    assert strip(evaluated, path) is None and strip(evaluated, path, Part(0.0, 5.0)) is None
    assert "no spectrogram" in text_of(write_reports(evaluated)[NAMES[0]])
    assert "holds no audio" in page_to_send(evaluated, "80")


def test_the_command_writes_a_page_and_names_what_there_is(
    evaluated: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOFI_DATA_DIR", str(evaluated.root))
    told = CliRunner().invoke(main, ["report", "160"])
    assert told.exit_code == 0 and f"{NAMES[1]}.html" in told.output
    sent = tmp_path / "sent.html"
    assert CliRunner().invoke(main, ["report", "--to", str(sent)]).exit_code == 0
    assert text_of(sent).count("data:audio/mpeg") == 4
    refused = CliRunner().invoke(main, ["report", "99"])
    assert refused.exit_code == 1 and "there are the steps 80, 160" in refused.output
    with pytest.raises(ReportError, match="no checkpoint was measured yet"):
        page_for(Store(tmp_path / "empty"), None)
