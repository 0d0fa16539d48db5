"""Pages of assets in the UI: a sentence first, what needs a person next, numbers that plot, nothing that is cut off.

`assert_reads_well` holds for every outcome; the tests of the stages ask it of theirs.
"""

import ast
from pathlib import Path

import dagster as dg
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from lofi_assets import pictures
from lofi_assets.defs.reporting import MAX_NEEDS, MAX_ROWS, SHOWN_AT_ONCE, metadata
from lofi_assets.outcome import Outcome
from lofi_assets.sources.report import RejectedFile, inventory_summary, rejected_files
from lofi_assets.tracks import report as track_report
from lofi_assets.tracks.report import tracks_summary, waveforms
from lofi_assets.wording import counted, named, tallied
from lofi_assets_tests.conftest import REPOSITORY
from lofi_assets_tests.stage_rows import track_row

PACKAGE = REPOSITORY / "lofi_assets"
MOST_COLUMNS = 5
LABEL_PIXELS = 10.0
LONGEST_WORD = 54
"""Characters that the UI's box is wide; a longer word widens it and cuts every sentence off."""


def assert_reads_well(outcome: Outcome, *, root: Path) -> None:
    """What the UI makes of an outcome begins with its sentence, and holds no JSON, no path and no wide table."""
    shown = metadata(outcome)
    assert next(iter(shown)) == "summary" and outcome.summary.endswith("."), outcome.summary
    if outcome.needs:
        assert list(shown)[1] == "needs a person" and 1 <= len(outcome.needs[0]) <= MOST_COLUMNS
    else:
        assert "needs a person" not in shown
    for name, value in shown.items():
        assert not isinstance(value, dg.JsonMetadataValue | dg.PathMetadataValue), f"{name} hides behind a click"
        if isinstance(value, dg.TextMetadataValue) and value.text:
            words = value.text.split()
            assert not words[0].startswith(("/", str(root))), f"{name} is a path on the server: {value.text}"
            assert max(map(len, words)) <= LONGEST_WORD, f"{name} would widen the box: {value.text}"


def page(**fields: object) -> dict[str, dg.MetadataValue]:
    values = {"data_version": "1", "counts": {"tracks": 3}, "summary": "Look here.", **fields}
    return metadata(Outcome(**values))  # type: ignore[arg-type]


def outcome_calls() -> list[tuple[str, set[str | None]]]:
    """Every `Outcome(...)` of the package: where, and which fields it names."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Outcome":
                found.append((f"{path.name}:{node.lineno}", {keyword.arg for keyword in node.keywords}))
    return found


def test_every_asset_says_what_to_look_at() -> None:
    calls = outcome_calls()
    assert len(calls) >= 15
    elsewhere = "dataset_manifest.py"  # `dataset.report` writes it
    assert [place for place, fields in calls if "summary" not in fields and not place.startswith(elsewhere)] == []


def test_a_page_is_in_reading_order() -> None:
    shown = page(
        needs=[{"file": "a.wav", "rule and why": "audio.clipping: too hot"}],
        links={"listen": "http://127.0.0.1:3001/data/x.html", "nothing": None},
        pictures={"loss": lambda: b"png"},
        details={"encoder": "musicnn", "fad": 16.5, "empty": None},
        rows=[{"track": "a", "score": 3}],
    )
    assert list(shown) == [
        *("summary", "needs a person", "open", "loss", "fad", "tracks", "encoder", "table", "dagster/row_count")
    ]


def test_numbers_that_people_follow_are_plotted() -> None:
    shown = page(details={"fad": 16.5, "steps": 240})
    assert isinstance(shown["fad"], dg.FloatMetadataValue) and isinstance(shown["steps"], dg.IntMetadataValue)
    assert isinstance(shown["tracks"], dg.IntMetadataValue)


def test_links_open_and_do_not_widen_the_box() -> None:
    address = "http://127.0.0.1:3001/data/samples/reports/index.html"
    shown = page(links={"checkpoints compared": address})["open"]
    assert isinstance(shown, dg.MarkdownMetadataValue) and shown.md_str == f"[checkpoints compared]({address})"


def test_a_table_that_is_wider_than_its_box_is_shown_in_a_window_of_its_own() -> None:
    """Inside the box it would cut off the sentence above it."""
    narrow = page(rows=[{"step": 240, "fad": 16.5}])["table"]
    assert isinstance(narrow, dg.TableMetadataValue)
    wide = page(rows=[{f"measure_{number}": 1.0 for number in range(9)}])["table"]
    assert isinstance(wide, dg.MarkdownMetadataValue) and len(wide.md_str) >= SHOWN_AT_ONCE
    assert len(wide.md_str.splitlines()) == 3


def test_a_name_in_a_table_is_no_markup() -> None:
    row = {"track": "rain|_one_*two*", **{f"measure_{number}": 1.0 for number in range(9)}}
    shown = page(rows=[row])["table"]
    assert isinstance(shown, dg.MarkdownMetadataValue) and r"rain\|\_one\_\*two\*" in shown.md_str


def test_tables_stay_small_and_the_counts_exact() -> None:
    shown = page(rows=[{"track": f"t{number}"} for number in range(300)], needs=[{"file": "x"}] * 300)
    table, needs = shown["table"], shown["needs a person"]
    assert isinstance(table, dg.TableMetadataValue) and isinstance(needs, dg.TableMetadataValue)
    assert len(table.records) == MAX_ROWS and len(needs.records) == MAX_NEEDS
    assert shown["dagster/row_count"].value == 300


def test_a_column_that_is_empty_everywhere_is_left_out() -> None:
    table = page(rows=[{"step": 1, "clap": None, "note": ""}, {"step": 2, "clap": 0.5, "note": ""}])["table"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [column.name for column in table.schema.columns] == ["step", "clap"]


def test_when_nothing_needs_a_person_the_sentence_says_so() -> None:
    assert "needs a person" not in page(needs=())
    assert tracks_summary(rejected=[], accepted=48).endswith("Nothing waits for a person.")
    assert inventory_summary(rejected=[], verified=2, problems=[]).endswith("Nothing waits for a person.")


def test_the_sentence_counts_rejects_by_rule() -> None:
    found = tracks_summary(rejected=["audio.silence", "audio.clipping", "audio.clipping"], accepted=50)
    assert found == "3 of 53 tracks were rejected and wait for a better file: audio.clipping 2, audio.silence 1."


def test_a_record_that_cannot_be_used_is_said_first_of_all() -> None:
    found = inventory_summary(rejected=[], verified=2, problems=["sources.json[0]: no source_type"])
    assert "1 problem with records, names or texts: see problems" in found and "Nothing waits" not in found


def test_a_reject_is_named_by_its_file_with_rule_and_reason() -> None:
    reason = "'Hot One.wav': clipped_share = 0.1"
    (shown,) = rejected_files([RejectedFile("hot", "raw/royalty-free/Hot One.wav", "audio.clipping", reason)])
    assert shown == {"file": "Hot One.wav", "rule and why": "audio.clipping: clipped_share = 0.1"}


def test_waveforms_show_rejects_first_and_then_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, object] = {}
    monkeypatch.setattr(
        "lofi_assets.tracks.report.pictures.waveforms", lambda found, marked: drawn.update(found=found, marked=marked)
    )
    accepted = [track_row(f"t{score}", quality_score=score, envelope="[[0, 1]]") for score in range(10, 20)]
    out = {"status": "rejected", "quality_score": 0}
    rejected = [
        track_row("quiet", **out, envelope="[[0, 1]]", rule="audio.silence"),
        track_row("unheard", **out, envelope="[]", rule="audio.readable"),
    ]
    (draw,) = waveforms(rejected, accepted).values()
    draw()
    names = list(drawn["found"])  # type: ignore[call-overload]
    assert names[:2] == ["quiet: rejected, audio.silence", "t10: score 10"] and len(names) == track_report.PICTURED
    assert drawn["marked"] == {"quiet: rejected, audio.silence"}


def small_labels(figure: Figure) -> list[tuple[str, float]]:
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    sizes = [(text.get_text(), text.get_fontsize() * figure.dpi / 72) for text in texts]
    return [(text, size) for text, size in sizes if size < LABEL_PIXELS]


def test_every_label_of_a_picture_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    figures: list[Figure] = []
    monkeypatch.setattr(pictures, "_png", lambda figure: figures.append(figure) or b"")
    noise = np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    pictures.waveforms({"a": [(-1, 1)] * 9})
    pictures.spectrogram(noise, sample_rate=48_000, title="lofi")
    pictures.spectrogram_grid({"a": [noise]}, heads=["base"], sample_rate=48_000)
    pictures.loss_curve([(1, 0.5), (2, 0.4)])
    pictures.curves_by_step({"a": [(1, 0.5)], "b": [(1, 0.4)]}, label="loss")
    pictures.score_by_step({80: 3.0}, label="FAD", marks={"floor": 1.0})
    assert len(figures) == 6
    for figure in figures:
        figure.canvas.draw()
        assert small_labels(figure) == []


def test_counts_and_names_are_words() -> None:
    assert (counted(1, "track"), counted(2, "track"), counted(1200, "file")) == ("1 track", "2 tracks", "1,200 files")
    assert named(["a", "b", "c", "d"]) == "a, b, c and 1 more" and named([]) == ""
    assert tallied(["b", "a", "b"]) == "b 2, a 1"
