"""The page server shows what people are meant to open, to this machine, and nothing else whatever is asked of it."""

import json
import os
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lofi_assets.html.player import SCRIPT_SOURCE
from lofi_assets.pages.files import CONTENT_TYPES
from lofi_assets.pages.server import page_app, pages_port
from lofi_assets.store import Store
from lofi_assets_tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
SECRET = "s3cret"

SHOWN = {
    "samples/reports/index.html": "text/html; charset=utf-8",
    "samples/reports/epoch=0-step=80_lora.html": "text/html; charset=utf-8",
    "samples/base/000_rain_01.mp3": "audio/mpeg",
    "dataset/lofi-1/audio/rain_01.mp3": "audio/mpeg",
    "logs/train-1/previews/index.html": "text/html; charset=utf-8",
    "logs/train-1/previews/step=80/track #1.mp3": "audio/mpeg",
    "processed/core/Дождь 1.mp3": "audio/mpeg",
    "quarantine/tracks/rain_02.json": "application/json",
    "release/README.md": "text/plain; charset=utf-8",
}
HIDDEN = (
    "listening/00af00af/key.json",
    "listening/00af00af/plan.json",
    "listening/00af00af/audio/0f.wav",
    "listening/00af00af/sessions/L001.jsonl",
    "listening/step-80-ab/page/index.html",
    "listening/ledger.jsonl",
    "metadata/sources.json",
    "metadata/evidence/contract.pdf",
    "checkpoints/epoch=0-step=80_lora/config.json",
    "raw/commissioned/rain_01.wav",
    "samples/base/samples.json",
    "samples/.base.part/000.mp3",
    "samples/reports/.env.html",
    "logs/train-1/train.jsonl",
    "processed/core/rain_01.py",
    "dataset/lofi-1/tracks.json",
    "release/published/README.md",
    ".env",
    "index.html",
)


@pytest.fixture
def pages(store: Store) -> TestClient:
    for path in (*SHOWN, *HIDDEN):
        (store.root / path).parent.mkdir(parents=True, exist_ok=True)
        (store.root / path).write_text(json.dumps({"track_id": "rain_02", "rule": "audio.clipping", "reason": SECRET}))
    for document in (store.metadata("sources.json"), store.datasets / "lofi-1" / "tracks.json"):
        document.write_text("[]")
    (store.checkpoints / "epoch=0-step=80_lora" / "config.json").write_text('{"tracks": []}')
    (store.root.parent / "outside.mp3").write_text(SECRET)
    return TestClient(page_app(store, DOCS), base_url="http://127.0.0.1:3001", follow_redirects=False)


@pytest.mark.parametrize("path", SHOWN)
def test_what_people_are_meant_to_open_opens_as_what_it_is(pages: TestClient, path: str) -> None:
    answer = pages.get(f"/data/{path.replace('#', '%23')}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == SHOWN[path]


@pytest.mark.parametrize("path", HIDDEN)
def test_what_nobody_is_meant_to_open_does_not_open(pages: TestClient, path: str) -> None:
    assert pages.get(f"/data/{path}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/data/../outside.mp3",
        "/data/processed/core/../../../outside.mp3",
        "/data/processed/core/..%2f..%2f..%2foutside.mp3",
        "/data/processed/%2e%2e/%2e%2e/outside.mp3",
        "/data/processed/core/..%5c..%5coutside.mp3",
        "/data//etc/passwd",
        "/data/%2fetc/passwd",
        "/data/processed//core/rain_01.mp3",
        "/data/processed/core/rain_01.mp3%00.html",
        "/data/processed/core/%0a.mp3",
        "/data/processed/core/" + "a" * 5000 + ".mp3",
        "/data/processed/core/%ff%fe.mp3",
        "/data/samples/base/../../listening/00af00af/key.json",
        "/data/samples/base/%2e%2e/%2e%2e/listening/00af00af/key.json",
        "/data/samples/reports/../../metadata/sources.json",
        "/docs/../pyproject.toml",
        "/docs/%2e%2e/README.md",
        "/docs/..%2f..%2fetc%2fpasswd",
        "/docs/.hidden.md",
        "/docs/gates",
        "/docs/",
        "/data/",
        "/data",
        "/metadata/sources.json",
    ],
)
def test_no_way_leads_out_of_what_is_shown(pages: TestClient, path: str) -> None:
    answer = pages.get(path)
    assert answer.status_code == 404 and SECRET not in answer.text


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("processed/core/out.mp3", "../../../outside.mp3"),
        ("samples/reports/out.html", "../../metadata/sources.json"),
        ("samples/base/key.mp3", "../../listening/00af00af/key.json"),
        ("samples/base/settings.mp3", "samples.json"),
        ("processed/core/loop.mp3", "loop.mp3"),
        ("processed/core/folder.mp3", "."),
        ("processed/core/nothing.mp3", "gone.mp3"),
    ],
)
def test_a_link_shows_nothing_that_is_not_shown_anyway(pages: TestClient, store: Store, link: str, target: str) -> None:
    (store.root / link).symlink_to(target)
    answer = pages.get(f"/data/{link}")
    assert answer.status_code == 404 and SECRET not in answer.text


def test_a_linked_folder_leads_nowhere_but_a_whole_part_of_the_data_may_lie_on_another_disk(
    pages: TestClient, store: Store, tmp_path: Path
) -> None:
    (store.processed / "linked").symlink_to(store.raw / "commissioned")
    (store.raw / "commissioned" / "rain_01.mp3").write_text(SECRET)
    assert pages.get("/data/processed/linked/rain_01.mp3").status_code == 404
    store.processed.rename(tmp_path / "disk")
    store.processed.symlink_to(tmp_path / "disk")
    assert pages.get("/data/processed/core/Дождь 1.mp3").status_code == 200


def test_what_is_no_regular_file_is_not_waited_for(pages: TestClient, store: Store) -> None:
    os.mkfifo(store.processed / "core" / "pipe.mp3")
    assert pages.get("/data/processed/core/pipe.mp3").status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/data/samples/base/000_rain_01.mp3", "/docs/gates.md", "/ledger", "/review"])
def test_nothing_can_be_written(pages: TestClient, method: str, path: str) -> None:
    answer = pages.request(method, path)
    assert answer.status_code == 405 and set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_audio_can_be_played_from_the_middle(pages: TestClient, store: Store) -> None:
    path = "/data/samples/base/000_rain_01.mp3"
    (store.samples / "base" / "000_rain_01.mp3").write_bytes(bytes(range(100)))
    assert pages.get(path).headers["accept-ranges"] == "bytes"
    part = pages.get(path, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == bytes(range(10, 20))
    assert part.headers["content-range"] == "bytes 10-19/100"
    assert pages.get(path, headers={"Range": "bytes=-5"}).content == bytes(range(95, 100))
    assert pages.get(path, headers={"Range": "bytes=200-"}).status_code == 416
    head = pages.head(path)
    assert head.status_code == 200 and head.content == b"" and head.headers["content-length"] == "100"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:3001", "", "evil@127"]
)
def test_a_name_of_others_that_points_here_gets_no_answer(pages: TestClient, host: str) -> None:
    answer = pages.get("/data/quarantine/tracks/rain_02.json", headers={"Host": host})
    assert answer.status_code == 400 and SECRET not in answer.text


@pytest.mark.parametrize(
    "host", ["127.0.0.1:3001", "localhost:3001", "LOCALHOST", "[::1]:3001", "pages.studio.example"]
)
def test_this_machine_and_the_name_of_the_proxy_get_answers(
    store: Store, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOFI_PAGES_URL", "https://pages.studio.example/lofi/")
    pages = TestClient(page_app(store, DOCS))
    assert pages.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/data/samples/reports/index.html", "/data/gone", "/docs/gates.md", "/review"])
def test_every_answer_says_what_a_browser_may_do_with_it(pages: TestClient, path: str) -> None:
    answer = pages.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert (
        "default-src 'none'" in policy
        and "frame-ancestors 'none'" in policy
        and "unsafe-inline" not in policy.partition("script-src")[2]
    )
    assert f"script-src {SCRIPT_SOURCE}; " in policy, "one script, by its hash"
    refused = pages.get(path, headers={"Host": "evil.example"})
    assert refused.headers["x-content-type-options"] == "nosniff"


def test_every_kind_of_file_that_is_shown_has_a_type() -> None:
    assert {Path(path).suffix for path in SHOWN} <= CONTENT_TYPES.keys()


def test_the_list_leads_only_to_pages_that_open(pages: TestClient) -> None:
    text = pages.get("/").text
    links = re.findall(r'href="(?!data:)([^"]+)"', text)
    assert {f"data/{path}" for path in SHOWN if path.endswith(("index.html", ".json", ".md"))} <= set(links)
    assert "docs/gates.md" in links and "ledger" in links and "review" in links
    for link in links:
        assert pages.get(f"/{link}").status_code == 200, link


def test_what_others_wrote_is_text_and_never_markup(pages: TestClient, store: Store) -> None:
    nasty = "<script>alert(1)</script>"
    (store.quarantine / "tracks" / "<b>.json").write_text(
        json.dumps({"track_id": "<b>", "rule": '"><b', "reason": nasty, "measures": {}})
    )
    (store.processed / "core" / "<img src=x>.mp3").write_text("")
    for page in (pages.get("/").text, pages.get("/review").text):
        assert nasty not in page and "<img src=x" not in page and '"><b' not in page


@pytest.mark.parametrize("key", ["raw_path", "path"])
def test_a_track_whose_id_says_nothing_is_shown_with_its_files_name(pages: TestClient, store: Store, key: str) -> None:
    record = {"track_id": "1_5d9ff404", "rule": "audio.clipping", "reason": "loud", key: "raw/commissioned/Дождь 1.wav"}
    (store.quarantine / "tracks" / "1_5d9ff404.json").write_text(json.dumps(record))
    assert ">1_5d9ff404 (Дождь 1.wav)</a>" in pages.get("/").text


def test_a_track_that_a_person_rejected_names_no_rule(pages: TestClient, store: Store) -> None:
    (store.quarantine / "tracks" / "rain_03.json").write_text(
        json.dumps({"track_id": "rain_03", "reason": "hum", "measures": {}})
    )
    assert ">rain_03</a>: hum</li>" in pages.get("/").text


def test_a_gate_has_an_address_of_its_own(pages: TestClient) -> None:
    text = pages.get("/docs/gates.md").text
    assert '<tr id="audio.clipping">' in text
    assert '<h2 id="governance">' in pages.get("/docs/constitution.md").text


def test_a_ledger_that_cannot_be_read_says_why(pages: TestClient, store: Store) -> None:
    store.metadata("sources.json").write_text("[{")
    answer = pages.get("/ledger")
    assert "sources.json" in answer.text and "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("", 3001),
        ("http://127.0.0.1:4001", 4001),
        ("http://localhost:4002/", 4002),
        ("http://[::1]:4003", 4003),
        ("https://pages.studio.example:8443", 3001),
    ],
)
def test_the_server_listens_where_links_lead(monkeypatch: pytest.MonkeyPatch, address: str, port: int) -> None:
    monkeypatch.setenv("LOFI_PAGES_URL", address)
    assert pages_port() == port
