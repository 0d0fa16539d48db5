"""One honest release, from training to the Hub, and what somebody else finds out about it.

`real_release.py` says what of it is real, and what stands in.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lofi_assets.cli.main import main
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_file, sha256_folder
from lofi_assets.release.deep_verification import Deep, FadAgain, measure_again
from lofi_assets.release.files import EVIDENCE, RELEASE, Part
from lofi_assets.release.signing import LIST, SIGNATURE, listing
from lofi_assets.release.verification import verify
from lofi_assets_tests.conftest import REPOSITORY
from lofi_assets_tests.release.conftest import local_hub
from lofi_assets_tests.release.fake_hub import TOKEN, FakeHub
from lofi_assets_tests.release.real_release import Deployment, deployed
from lofi_assets_tests.release.stand_in_release import REPOS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("whole_release")]
NOBODY = 65534


@pytest.fixture(scope="module")
def released(
    tmp_path_factory: pytest.TempPathFactory, training_material: dict[str, Any]
) -> Iterator[tuple[Deployment, FakeHub]]:
    root = tmp_path_factory.mktemp("deployed")
    with FakeHub() as hub, local_hub(hub, root), deployed(root / "data", training_material) as found:
        yield found, hub


@pytest.fixture(scope="module")
def downloaded(released: tuple[Deployment, FakeHub], tmp_path_factory: pytest.TempPathFactory) -> dict[Part, Path]:
    """Both repositories as the Hub holds them; to be read only."""
    root, (_, hub) = tmp_path_factory.mktemp("downloaded"), released
    folders: dict[Part, Path] = {"adapter": root / "adapter", "tiers": root / "tiers"}
    for part, folder in folders.items():
        for name, content in hub.files(REPOS[part]).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return folders


def test_what_was_published_is_read_back_and_holds(released: tuple[Deployment, FakeHub]) -> None:
    assert released[0].checks == {"reads_back": True, "ready_to_release": True}


def test_it_holds_for_another_user_elsewhere_who_has_the_hub_alone(released: tuple[Deployment, FakeHub]) -> None:
    """Another working directory and home, no setting of the deployment; another user where that is possible."""
    home, other = Path(tempfile.mkdtemp(prefix="somebody-")), other_user()
    if other:
        os.chown(home, NOBODY, NOBODY)
    variables = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(REPOSITORY), "HF_TOKEN": TOKEN}
    variables |= {"HF_ENDPOINT": released[1].url, "HF_HUB_DISABLE_XET": "1", "COLUMNS": "200"}
    command = [sys.executable, "-c", "from lofi_assets.cli.main import main; main()", "verify", *REPOS.values()]
    try:
        done = subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, check=False, **other)
    finally:
        shutil.rmtree(home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": holds: epoch=0-step=3_lora") == 2 and "fault" not in done.stdout


def other_user() -> dict[str, Any]:
    """Options of `subprocess` for a user who owns nothing here; none where the tests are not root, or where Python and
    its packages lie in a folder that only root may enter."""
    options: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    probe = [sys.executable, "-c", "import click, huggingface_hub"]
    try:
        done = subprocess.run(probe, cwd="/", env={}, capture_output=True, check=False, **options)
    except PermissionError:
        return {}
    return {} if done.returncode else options


def test_any_one_byte_of_any_file_that_changed_is_named(downloaded: dict[Part, Path]) -> None:
    for folder in downloaded.values():
        names = sorted(sha256_folder(folder))
        assert len(names) > 20
        for name in names:
            content = (folder / name).read_bytes()
            place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % len(content)
            (folder / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            try:
                assert name in named(folder), (name, place)
            finally:
                (folder / name).write_bytes(content)
        assert verify(folder).holds


def named(folder: Path) -> str:
    """What a verification says is wrong, however it ends."""
    done = CliRunner().invoke(main, ["verify", str(folder), "--json"])
    assert done.exit_code == 1
    if done.output.startswith("{"):
        (found,) = json.loads(done.output)["repositories"]
        assert not found["holds"]
        return " ".join(f"{row['about']} {row['text']}" for row in found["findings"] if row["level"] == "fault")
    return done.output.replace("\n", "")


def again(folders: dict[Part, Path], base: Path | None, scratch: Path, *, fad: FadAgain | None = None) -> Deep:
    records = {part: verify(folder).record for part, folder in folders.items()}
    return measure_again(folders, records, base=base, scratch=scratch, fad=fad)


def statuses(deep: Deep) -> dict[str, str]:
    return {found.about: found.status for found in deep.measured}


def test_everything_that_can_be_measured_is_the_same_with_the_base(
    released: tuple[Deployment, FakeHub], downloaded: dict[Part, Path], tmp_path: Path
) -> None:
    music = next(released[0].store.root.glob("dataset/*/audio"))
    deep = again(downloaded, released[0].base, tmp_path, fad=FadAgain(16, music))
    assert deep.complete and not deep.differs, [row for row in deep.measured if row.status != "same"]
    found = statuses(deep)
    assert {
        "adapter.forms",
        "merge.parity",
        "tiers.fad int8",
        "tiers.fad int8.cpu",
        "tiers.fad int4",
        "bundle.parity int8.cpu",
        "tiers.snr int4 vocoder",
    } <= found.keys()
    assert {f"tiers.policy {tier}, against FP32" for tier in ("fp16", "int8", "int4")} <= found.keys()


def test_without_the_base_nothing_differs_and_what_is_not_measured_does_not_count(
    released: tuple[Deployment, FakeHub], downloaded: dict[Part, Path], tmp_path: Path
) -> None:
    deep = again(downloaded, None, tmp_path)
    assert not deep.differs and not deep.complete
    found = statuses(deep)
    assert found["adapter.forms"] == found["tiers.policy int8"] == "same"
    assert found["merge.parity"] == found["tiers.snr fp16"] == found["bundle.parity fp16"] == "not measured"
    done = CliRunner().invoke(main, ["verify", "--deep", *map(str, downloaded.values())])
    assert done.exit_code == 3 and "not measured" in done.output


def test_weights_that_were_altered_and_listed_anew_are_found_by_measuring(
    released: tuple[Deployment, FakeHub], downloaded: dict[Part, Path], tmp_path: Path
) -> None:
    """Whoever edits everything owns an unsigned release: its files and evidence hold, and its numbers do not."""
    forged: dict[Part, Path] = {"adapter": downloaded["adapter"], "tiers": tmp_path / "tiers"}
    shutil.copytree(downloaded["tiers"], forged["tiers"])
    weights = forged["tiers"] / "bundle" / "int8" / "transformer.onnx.data"
    content = weights.read_bytes()
    weights.write_bytes(bytes(byte ^ 0x20 for byte in content[:4096]) + content[4096:])
    relist(forged["tiers"], "export/int8/transformer.onnx.data", sha256_file(weights))
    assert verify(forged["tiers"]).holds
    (tmp_path / "scratch").mkdir()
    deep = again(forged, released[0].base, tmp_path / "scratch")
    wrong = {found.about for found in deep.measured if found.status == "differs"}
    assert {"tiers.policy int8, against FP32", "tiers.snr int8 transformer", "bundle.parity int8"} <= wrong
    assert not any("fp16" in name or "int4" in name for name in wrong)


def relist(folder: Path, name: str, sha256: str) -> None:
    """Put another hash of a file into the evidence, and list everything anew."""
    path = folder / EVIDENCE / "onnx_artifacts.json"
    data = read_json(path)
    for subject in data["subject"]:
        if subject["name"] == name:
            subject["digest"]["sha256"] = sha256
    path.write_text(json.dumps(data))
    about = read_json(folder / RELEASE)
    about["evidence"]["onnx_artifacts"] = sha256_file(path)
    files = {key: digest for key, digest in sha256_folder(folder).items() if key not in (RELEASE, LIST, SIGNATURE)}
    about["files"] = {key: {"bytes": 1, "sha256": digest} for key, digest in files.items()}
    (folder / RELEASE).write_text(json.dumps(about))
    files[RELEASE] = sha256_file(folder / RELEASE)
    (folder / LIST).write_text(listing(files, release=about["release"], key=None))


def test_another_base_is_not_measured_with(
    downloaded: dict[Part, Path], released: tuple[Deployment, FakeHub], tmp_path: Path
) -> None:
    other = shutil.copytree(released[0].base, tmp_path / "other")
    (other / "lyric_vocab.json").unlink()
    (tmp_path / "scratch").mkdir()
    adapter: dict[Part, Path] = {"adapter": downloaded["adapter"]}
    found = {row.about: row for row in again(adapter, other, tmp_path / "scratch").measured}
    assert found["merge.parity"].status == "not measured" and "is the base" in found["merge.parity"].text
