"""`lofi generate` and `lofi tiers` as people call them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from lofi_assets.cli.main import main
from lofi_assets.lofi_onnx import clip
from lofi_assets.release.tier_report import tier_report
from lofi_assets_tests.quantization.stand_in_manifest import MANIFEST
from lofi_assets_tests.release.test_release_deep import parity, variant


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """One tier with its manifest, and a parity report; no graphs."""
    folder = tmp_path / "bundle"
    (folder / "int8").mkdir(parents=True)
    (folder / "int8" / "manifest.json").write_text(json.dumps(MANIFEST), encoding="utf-8")
    row = replace(variant(36.0), fad_increase=0.005, fad_increase_upper_95=0.016, fad_note="")
    replace(parity(), tiers={"int8": row}).write(folder)
    return folder


def test_tiers_tells_opset_domains_bits_size_snr_and_fad_with_its_bound(bundle: Path) -> None:
    done = CliRunner().invoke(main, ["tiers", str(bundle), "--runs", "0", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    (part,) = told["parts"]
    assert (part["component"], part["opset"], part["domains"]) == ("text_encoder", 17, ["ai.onnx"])
    assert part["bits"] == {"8": pytest.approx(0.99724, abs=1e-5), "32": pytest.approx(0.00276, abs=1e-5)}
    assert (part["megabytes"], part["of_fp32"], part["snr_db"]) == (0.575079, 0.326, 32.9)
    int8, cpu = told["variants"]
    assert (int8["fad_increase"], int8["fad_upper"], int8["milliseconds"], int8["times_fp32"]) == (
        *(0.005, 0.016),
        *(None, None),
    )
    assert (cpu["variant"], cpu["fad_increase"], cpu["fad_note"]) == ("int8.cpu", None, "not measured")


def test_tiers_shows_tables(bundle: Path) -> None:
    done = CliRunner().invoke(main, ["tiers", str(bundle), "--runs", "0"])
    assert done.exit_code == 0 and "+0.5%" in done.output and "not measured" in done.output


def multiply(path: Path, *, times: int) -> None:
    """A graph that multiplies its input by a square matrix, `times` times."""
    names = ["noisy", *(f"x{index}" for index in range(1, times)), "velocity"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "frames", 64]) for name in names]
    weight = numpy_helper.from_array(np.eye(64, dtype=np.float32), "weight")
    nodes = [helper.make_node("MatMul", [names[index], "weight"], [names[index + 1]]) for index in range(times)]
    made = helper.make_graph(nodes, "g", values[:1], values[-1:], [weight])
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString())


def test_every_way_to_run_a_tier_is_timed_against_fp32_and_without_fp32_nothing_is_compared(bundle: Path) -> None:
    (bundle / "fp32").mkdir()
    (bundle / "fp32" / "manifest.json").write_text(json.dumps(MANIFEST | {"tier": "fp32"}), encoding="utf-8")
    for name, times in (("fp32/transformer", 400), ("int8/transformer", 200), ("int8/transformer.cpu", 4)):
        multiply(bundle / f"{name}.onnx", times=times)
    found = {row.variant: row for row in tier_report(bundle, runs=5, threads=1).variants}
    assert found["fp32"].times_fp32 == 1.0
    taken = {name: row.milliseconds for name, row in found.items() if row.milliseconds is not None}
    assert taken.keys() == {"fp32", "int8", "int8.cpu"} and min(taken.values()) > 0
    assert {name: found[name].times_fp32 for name in taken} == {name: taken["fp32"] / taken[name] for name in taken}
    shutil.rmtree(bundle / "fp32")
    alone = {row.variant: row for row in tier_report(bundle, runs=1, threads=1).variants}
    assert alone["int8"].times_fp32 is None and alone["int8"].milliseconds is not None


def test_layers_are_told_by_what_they_cost(bundle: Path) -> None:
    done = CliRunner().invoke(main, ["tiers", str(bundle), "--layers"])
    assert done.exit_code == 1 and "INT4 has no record of its layers; materialise quantized_tiers" in done.output
    costs = (("a", 30.0), ("b", 20.0))
    layers = [{"layer": name, "elements": 10, "snr_db_4": four, "snr_db_8": four + 22} for name, four in costs]
    recipe = {"int8_layers": ["b"], "int4_block": 32}
    (bundle / "int4").mkdir()
    manifest = MANIFEST | {"tier": "int4", "layers": layers, "recipe": recipe}
    (bundle / "int4" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    done = CliRunner().invoke(main, ["tiers", str(bundle), "--layers"])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.output.splitlines() if "│" in line]
    assert rows[-2:] == [["b", "10", "20.0", "42.0", "8 bits"], ["a", "10", "30.0", "52.0", "4 bits"]], done.output
    told = json.loads(CliRunner().invoke(main, ["tiers", str(bundle), "--runs", "0", "--json"]).output)
    assert told["layers"][0] == {"layer": "b", "elements": 10, "snr_db_4": 20.0, "snr_db_8": 42.0, "bits": 8}


def test_a_folder_without_tiers_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["tiers", str(tmp_path)])
    assert done.exit_code == 1 and "no tier in it" in done.output


def test_generate_explains_what_it_refuses(bundle: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["generate", "--bundle", str(bundle), "lofi", "-o", str(tmp_path / "a.wav")])
    assert done.exit_code == 1 and "no description of a bundle" in done.output and "Traceback" not in done.output


def test_generate_hands_on_what_it_was_asked_for(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "song.txt").write_text("rain", encoding="utf-8")
    asked: dict[str, object] = {}

    def stand_in(folder: Path, prompt: str, **options: object) -> str:
        asked.update(options, folder=folder, prompt=prompt)
        return "made"

    monkeypatch.setattr(clip, "write_clip", stand_in)
    arguments = ["--bundle", str(bundle), "lofi, rain", "--lyrics", str(tmp_path / "song.txt"), "--seconds", "60"]
    arguments += ["--seed", "7", "--tier", "int8", "-o", "out.wav"]
    done = CliRunner().invoke(main, ["generate", *arguments])
    assert done.output == "made\n", done.output
    assert asked["folder"] == bundle and asked["prompt"] == "lofi, rain" and asked["lyrics"] == "rain"
    assert (asked["seconds"], asked["seed"], asked["tier"], asked["output"]) == (60.0, 7, "int8", Path("out.wav"))
