"""`lofi verify`: what somebody finds out who has a release and nothing of the machine that made it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lofi_assets.cli.main import main
from lofi_assets.constitution import evidence
from lofi_assets.constitution.dsse import SigningError, envelope, private_key
from lofi_assets.constitution.gates import load_gates
from lofi_assets.constitution.verdicts import Measures
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_file, sha256_folder
from lofi_assets.files.typed import plain
from lofi_assets.outcome import Written
from lofi_assets.release.files import (
    CARD,
    EVIDENCE,
    RELEASE,
    Approver,
    ReleasedFile,
    ReleasedGate,
    ReleaseError,
    ReleaseRecord,
)
from lofi_assets.release.signing import LIST, SIGNATURE, listing
from lofi_assets.release.verification import Report, verify
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets_tests.defs.test_gate_checks import SEAMS, UNJUDGED, passing_value
from lofi_assets_tests.recorded_evidence import record

LINEAGE = list(SEAMS)[:-1]
CHECKPOINT = "checkpoints/epoch=0-step=10_lora"
WEIGHTS = "pytorch_lora_weights.safetensors"
FILES = {
    "lora_checkpoints": [f"{CHECKPOINT}/{WEIGHTS}", f"{CHECKPOINT}/adapter_config.json"],
    "onnx_artifacts": ["export/int8/transformer.onnx", "export/bundle.json"],
    "model_card": [f"release/{CARD}"],
}
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def lineage(store: Store) -> None:
    """Evidence of everything before a release, all gates passing."""
    for asset, names in FILES.items():
        for name in names:
            path = store.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} of {asset}\n")
    for number, asset in enumerate(LINEAGE):
        gates = [gate for gate in load_gates() if gate.asset == asset]
        measures = Measures(
            asset,
            f"{asset} 1",
            dict.fromkeys(LINEAGE[:number], ""),
            {gate.measure: passing_value(gate) for gate in gates if gate.scope == "asset"} | UNJUDGED.get(asset, {}),
            {gate.id: {"accepted": 3, "violating": 0, "rejected": 0} for gate in gates if gate.scope == "track"},
        )
        files = [store.root / name for name in FILES.get(asset, ())]
        materials = [store.root / FILES["lora_checkpoints"][0]] if asset == "merged_model" else []
        kind = "given" if asset == "lora_checkpoints" else "files"
        record(store, measures, written=Written(materials=materials, **{kind: files}))


def released(store: Store, folder: Path, *, key: Ed25519PrivateKey | None = None) -> Path:
    """A repository as a release leaves it."""
    folder.mkdir()
    sources = {
        WEIGHTS: store.root / CHECKPOINT / WEIGHTS,
        "adapter_config.json": store.root / CHECKPOINT / "adapter_config.json",
        "bundle/int8/transformer.onnx": store.root / "export/int8/transformer.onnx",
        CARD: store.root / "release" / CARD,
        f"{EVIDENCE}/constitution.yaml": CONFIG_DIR / "constitution.yaml",
        **{
            f"{EVIDENCE}/{asset}.json": evidence.document_path(store, asset, evidence.current_sha256(store, asset))
            for asset in LINEAGE
        },
    }
    for name, path in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    rewritten = folder / "adapter_config.json"
    made_from = {"adapter_config.json": sha256_file(rewritten)}
    rewritten.write_text("without a path\n")
    about = ReleaseRecord(
        checkpoint="epoch=0-step=10_lora",
        adapter_sha256="a" * 64,
        base_fingerprint="b" * 64,
        dataset_sha256="d" * 64,
        config_sha256="c" * 64,
        card_sha256=sha256_file(folder / CARD),
        approval=Approver("R. Manager", "2025-12-22T12:00:00+00:00"),
        constitution=load_version(),
        gates=tuple(ReleasedGate(gate.id, "pass", "") for gate in load_gates() if "hub_release" in gate.holds),
        tools={},
        files={name: ReleasedFile((folder / name).stat().st_size, sha256) for name, sha256 in hashes(folder).items()},
        evidence={asset: evidence.current_sha256(store, asset) for asset in LINEAGE},
        made_from=made_from,
    )
    seal(folder, plain(about), key=key)
    return folder


def load_version() -> str:
    return str(read_json(CONFIG_DIR / "amendments.json")[-1]["version"])


def hashes(folder: Path) -> dict[str, str]:
    own = (RELEASE, LIST, SIGNATURE)
    return {name: digest for name, digest in sha256_folder(folder).items() if name not in own}


def seal(folder: Path, about: dict[str, Any], *, key: Ed25519PrivateKey | None) -> None:
    """Write what lists the files, as whoever lets a release go does."""
    (folder / RELEASE).write_text(json.dumps(about))
    files = {name: file["sha256"] for name, file in about["files"].items()}
    listed = listing(files | {RELEASE: sha256_file(folder / RELEASE)}, release="r", key=key)
    (folder / LIST).write_text(listed)
    if key:
        (folder / SIGNATURE).write_text(envelope(listed, key))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A release without a signature, and one with."""
    root = tmp_path_factory.mktemp("made")
    store = Store(root / "data")
    lineage(store)
    return released(store, root / "plain"), released(store, root / "signed", key=SIGNER)


@pytest.fixture
def plain_release(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "release"))


@pytest.fixture
def signed_release(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "release"))


def faults(report: Report) -> dict[str, str]:
    told: dict[str, str] = {}
    for found in report.findings:
        if found.level == "fault":
            told[found.about] = f"{told[found.about]}; {found.text}" if found.about in told else found.text
    return told


def reseal(folder: Path, change: Callable[[dict[str, Any]], object], *, key: Ed25519PrivateKey | None = None) -> None:
    """As somebody who edits a release and lists it anew, hashes and all."""
    about = read_json(folder / RELEASE)
    change(about)
    about["files"] = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest} for name, digest in hashes(folder).items()
    }
    seal(folder, about, key=key)


def test_an_honest_release_holds_from_its_files_alone(plain_release: Path) -> None:
    report = verify(plain_release)
    assert faults(report) == {} and report.holds
    assert [(found.about, found.text) for found in report.findings] == [(SIGNATURE, "nobody signed this release")]
    assert len(report.verdicts) == len(report.record.gates) and all(found.passed for found in report.verdicts)


def test_a_signed_one_says_by_whose_key(signed_release: Path) -> None:
    trusted = verify(signed_release, key=SIGNER.public_key())
    assert trusted.holds and trusted.findings == () and len(trusted.signed_by) == 64
    unknown = verify(signed_release)
    assert unknown.holds and "whether that is a key you trust" in unknown.findings[0].text


@pytest.mark.parametrize("signed", [False, True], ids=["not signed", "signed"])
def test_one_changed_byte_of_any_file_is_found_and_named(made: tuple[Path, Path], tmp_path: Path, signed: bool) -> None:
    release = Path(shutil.copytree(made[signed], tmp_path / "release"))
    names = sorted(path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file())
    assert len(names) == 4 + 1 + len(LINEAGE) + 2 + signed, "files, gates, evidence, lists"
    for name in names:
        content = (release / name).read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            changed = bytearray(content)
            changed[place] ^= 1
            (release / name).write_bytes(changed)
            assert name in found_at(release), (name, place)
        (release / name).write_bytes(content)
    assert verify(release).holds


def found_at(release: Path) -> str:
    """What a verification names, however it ends."""
    done = CliRunner().invoke(main, ["verify", str(release)])
    assert done.exit_code != 0
    return done.output.replace("\n", "")


@pytest.mark.parametrize(
    ("name", "said"),
    [(WEIGHTS, "is missing"), (f"{EVIDENCE}/quality_metrics.json", "is missing"), (LIST, "is missing")],
)
def test_a_file_that_is_missing(plain_release: Path, name: str, said: str) -> None:
    (plain_release / name).unlink()
    assert said in faults(verify(plain_release))[name]


def test_a_file_that_was_added_and_what_the_hub_adds(plain_release: Path) -> None:
    (plain_release / ".gitattributes").write_text("* text")
    assert verify(plain_release).holds
    (plain_release / "generate.py").write_text("import os")
    assert faults(verify(plain_release)) == {"generate.py": "was not released"}


def test_a_link_in_a_files_place(plain_release: Path, tmp_path: Path) -> None:
    path = plain_release / WEIGHTS
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert faults(verify(plain_release))[WEIGHTS] == "is a link"


def test_no_release_at_all(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["verify", str(tmp_path)])
    assert done.exit_code == 1 and "so this is no release" in done.output


# --- edited, and listed anew -----------------------------------------------------------------------------------------


def edit_document(folder: Path, asset: str, change: Callable[[dict[str, Any]], object]) -> str:
    path = folder / EVIDENCE / f"{asset}.json"
    data = read_json(path)
    change(data)
    path.write_text(json.dumps(data))
    return sha256_file(path)


def test_a_better_number_with_every_hash_made_to_fit_is_judged_as_the_numbers_are(plain_release: Path) -> None:
    """Without a signature, whoever edits a number and lists all anew owns the release; a worse number still shows."""

    def worse(data: dict[str, Any]) -> None:
        data["predicate"]["values"]["fad"] = {"value": 9.0, "encoder": "vggish", "trained": True}

    sha256 = edit_document(plain_release, "quality_metrics", worse)
    reseal(plain_release, lambda about: about["evidence"].update(quality_metrics=sha256))
    assert "fad = 9, must be < 5.0" in faults(verify(plain_release))["quality.fad"]


def test_an_edit_listed_anew_does_not_have_the_signers_signature(signed_release: Path) -> None:
    (signed_release / WEIGHTS).write_text("other weights")
    reseal(signed_release, lambda about: None, key=Ed25519PrivateKey.generate())
    found = faults(verify(signed_release, key=SIGNER.public_key()))
    assert "not signed by the key" in found[SIGNATURE]
    assert "no evidence names it" in found[WEIGHTS]


def test_a_signature_that_was_taken_off(signed_release: Path) -> None:
    (signed_release / SIGNATURE).unlink()
    assert "is missing" in faults(verify(signed_release))[SIGNATURE]
    reseal(signed_release, lambda about: None)
    assert verify(signed_release).holds, "nobody says that it was signed"
    assert not verify(signed_release, key=SIGNER.public_key()).holds


def test_foreign_weights_that_are_listed(plain_release: Path) -> None:
    (plain_release / WEIGHTS).write_text("other weights")
    reseal(plain_release, lambda about: None)
    assert faults(verify(plain_release)) == {WEIGHTS: "no evidence names it, nor what it was made from"}


def test_another_card_than_the_approved_one(plain_release: Path) -> None:
    (plain_release / CARD).write_text("another card")
    reseal(plain_release, lambda about: None)
    assert "R. Manager approved" in faults(verify(plain_release))[CARD]


def test_evidence_that_is_left_out(plain_release: Path) -> None:
    (plain_release / EVIDENCE / "dataset_manifest.json").unlink()
    reseal(plain_release, lambda about: about["evidence"].pop("dataset_manifest"))
    found = faults(verify(plain_release))
    assert "of which there is no evidence" in found["quality_metrics"]
    assert "the evidence inconclusive" in found["dataset.hash"]


def test_no_evidence_at_all(plain_release: Path) -> None:
    reseal(plain_release, lambda about: about["evidence"].clear())
    assert "names no evidence" in faults(verify(plain_release))[RELEASE]


def test_evidence_of_another_build(plain_release: Path) -> None:
    sha256 = edit_document(plain_release, "prompts", lambda data: data["predicate"].update(data_version="prompts 2"))
    reseal(plain_release, lambda about: about["evidence"].update(prompts=sha256))
    assert faults(verify(plain_release))["dataset_manifest"] == "was made from another build of prompts"


def test_evidence_about_something_that_nothing_made(plain_release: Path) -> None:
    sha256 = edit_document(
        plain_release, "merged_model", lambda data: data["predicate"]["materials"].update({"checkpoints/x": "0" * 64})
    )
    reseal(plain_release, lambda about: about["evidence"].update(merged_model=sha256))
    assert faults(verify(plain_release))["merged_model"] == "is about checkpoints/x, which nothing before it made"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("hub_release", "merged_model"), "has other gates"),
        (lambda text: text.replace("limit: 5.0", "limit: 500.0"), "has other gates"),
        (lambda text: text.replace("gates:", "gates: ["), "constitution.yaml"),
    ],
    ids=["holds removed", "limit raised", "broken"],
)
def test_another_table_of_gates(plain_release: Path, change: Callable[[str], str], said: str) -> None:
    path = plain_release / EVIDENCE / "constitution.yaml"
    path.write_text(change(path.read_text()))
    reseal(plain_release, lambda about: None)
    found = faults(verify(plain_release))
    assert said in " ".join(f"{name} {text}" for name, text in found.items())


def test_a_gate_that_the_record_calls_passed_and_its_evidence_does_not(plain_release: Path) -> None:
    first, *_, last = [row["gate"] for row in read_json(plain_release / RELEASE)["gates"]]
    reseal(plain_release, lambda about: (about["gates"][0].update(verdict="fail"), about["gates"].pop()))
    said = {first: "release.json says fail, the evidence pass", last: "release.json says nothing, the evidence pass"}
    assert faults(verify(plain_release)) == said


def test_an_earlier_constitution_is_said_to_be_one_with_what_it_did_not_ask(
    plain_release: Path, tmp_path: Path
) -> None:
    known = read_json(CONFIG_DIR / "amendments.json")
    later = [*known, known[-1] | {"version": "99.0.0", "date": "2030-01-02", "gates_sha256": "0" * 64}]
    (tmp_path / "amendments.json").write_text(json.dumps(later))
    shutil.copy(CONFIG_DIR / "licenses.yaml", tmp_path)
    table = (CONFIG_DIR / "constitution.yaml").read_text()
    (tmp_path / "constitution.yaml").write_text(table.replace("- id: quality.copies\n", "- id: quality.no_copies\n"))
    report = verify(plain_release, config_dir=tmp_path)
    said = f"version {known[-1]['version']}; in force here is 99.0.0 of 2030-01-02, which asks too: quality.no_copies"
    assert report.holds and said in [found.text for found in report.findings]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"CC-BY-4.0": 2, "CC-BY-NC-ND-4.0": 1}, "1 track under 'CC-BY-NC-ND-4.0', which is denied here"),
        ({"cc by nc 2.0": 12}, "12 tracks under 'cc by nc 2.0', which is denied here"),
        ({"CC-BY-4.0": 2}, "says the licences of 2 tracks, and let in another number"),
        (None, "does not say under which licences"),
        ({}, "does not say under which licences"),
        ({"CC-BY-4.0": 2, "CC0-1.0": -1}, "does not say under which licences"),
        ({"CC-BY-4.0": True}, "does not say under which licences"),
        ({"CC-BY-4.0": "2"}, "does not say under which licences"),
        ([], "does not say under which licences"),
    ],
)
def test_licences_are_judged_by_the_table_of_whoever_verifies(plain_release: Path, said: Any, fault: str) -> None:
    """The table by which the tracks were let in may be another's: it says nothing to anybody else."""
    sha256 = edit_document(
        plain_release, "licensed_sources", lambda data: data["predicate"]["values"].update(licences=said)
    )
    reseal(plain_release, lambda about: about["evidence"].update(licensed_sources=sha256))
    assert fault in faults(verify(plain_release))["licensed_sources"]


def test_a_licence_that_nobody_here_knows_is_noted(plain_release: Path) -> None:
    sha256 = edit_document(
        plain_release, "licensed_sources", lambda data: data["predicate"]["values"].update(licences={"Studio-7": 1})
    )
    reseal(plain_release, lambda about: about["evidence"].update(licensed_sources=sha256))
    report = verify(plain_release)
    assert report.holds
    assert "1 track under 'Studio-7', which is not listed here" in [found.text for found in report.findings]


def test_tracks_that_were_let_in_by_another_table(plain_release: Path) -> None:
    other = {"version": "1.0.0", "gates_sha256": "0" * 64}
    sha256 = edit_document(plain_release, "processed_tracks", lambda data: data["predicate"].update(constitution=other))
    reseal(plain_release, lambda about: about["evidence"].update(processed_tracks=sha256))
    assert "by another table of gates (version 1.0.0)" in faults(verify(plain_release))["processed_tracks"]


def test_a_version_of_the_constitution_that_is_not_known_here(plain_release: Path) -> None:
    reseal(plain_release, lambda about: about.update(constitution="9.0.0"))
    assert "is not known here" in faults(verify(plain_release))["constitution"]


def test_a_name_that_leads_out_of_the_release(plain_release: Path) -> None:
    about = read_json(plain_release / RELEASE)
    about["files"]["../secret"] = {"bytes": 1, "sha256": "0" * 64}
    seal(plain_release, about, key=None)
    with pytest.raises(ReleaseError, match=r"names '\.\./secret', which leads out of the release"):
        verify(plain_release)


# --- keys ------------------------------------------------------------------------------------------------------------


def pem(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def test_the_private_key_is_a_text_or_a_file_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOFI_SIGNING_KEY", raising=False)
    assert private_key() is None
    (tmp_path / "key.pem").write_text(pem(SIGNER))
    for setting in (pem(SIGNER), str(tmp_path / "key.pem")):
        monkeypatch.setenv("LOFI_SIGNING_KEY", setting)
        found = private_key()
        assert found is not None and found.private_bytes_raw() == SIGNER.private_bytes_raw()


def test_a_broken_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = pem(SIGNER).replace("A", "B")
    monkeypatch.setenv("LOFI_SIGNING_KEY", secret)
    with pytest.raises(SigningError, match="holds no private key") as failed:
        private_key()
    assert secret[40:60] not in str(failed.value) and failed.value.__cause__ is None


def test_a_public_key_of_the_signer_on_the_command_line(signed_release: Path, tmp_path: Path) -> None:
    key = tmp_path / "signer.pub"
    key.write_bytes(
        SIGNER.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    done = CliRunner().invoke(main, ["verify", str(signed_release), "--key", str(key)])
    assert done.exit_code == 0 and "holds" in done.output and "signed by" in done.output
    key.write_text("no key")
    done = CliRunner().invoke(main, ["verify", str(signed_release), "--key", str(key)])
    assert done.exit_code == 1 and "no public key in PEM" in done.output
