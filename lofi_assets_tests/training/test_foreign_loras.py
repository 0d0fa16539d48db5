"""A LoRA of any origin is applied as its own reader applies it; one that cannot be read so is refused by name."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.loading import TRANSFORMER, load_transformer
from lofi_assets.training.adapter_forms.adapter import Adapter, AdapterError
from lofi_assets.training.adapter_forms.reading import layers_of, read_lora
from lofi_assets.training.adapter_forms.writing import Target, write_lora
from lofi_assets_tests.training.foreign_loras import LAYERS, MAKERS, Deltas, ace_step, comfyui, peft, random_pairs
from lofi_assets_tests.training.test_training_forms import comfyui_weights, velocity

ROUNDING = 1e-5
RANKS = {"peft": {"speaker_embedder": 3}}


@pytest.fixture(scope="module")
def layers(tiny_base: Path) -> dict[str, tuple[int, ...]]:
    return layers_of(ACE_STEP_V1, tiny_base)


@pytest.fixture(scope="module")
def untrained(tiny_base: Path) -> torch.Tensor:
    return velocity(load_transformer(tiny_base / TRANSFORMER))


def theirs(base: Path, added: Deltas) -> torch.Tensor:
    """What the model answers with the weights that their reader ends up with."""
    transformer = load_transformer(base / TRANSFORMER)
    with torch.no_grad():
        for layer, delta in added.items():
            weight = transformer.get_submodule(layer).weight
            weight += delta.reshape(weight.shape)
    return velocity(transformer)


def error(found: torch.Tensor, wanted: torch.Tensor, untrained: torch.Tensor) -> float:
    """Root mean square of the difference as a share of that of the adapter's effect, which is there.

    A single number depends on the order of sums, so on the CPU's kernels: where the linear attention divides by little,
    float32 leaves up to 2e-5 of the largest. One that is wrong by more than ten times `ROUNDING` is no rounding.
    """
    effect, difference = wanted - untrained, found - wanted
    assert float(effect.abs().max()) > 1e-3
    assert float(difference.abs().max()) < 10 * ROUNDING * float(effect.abs().max())
    return float(difference.norm() / effect.norm())


@pytest.mark.parametrize("form", MAKERS)
def test_every_form_is_applied_as_its_own_reader_does(
    form: str, tiny_base: Path, layers: dict[str, tuple[int, ...]], untrained: torch.Tensor, tmp_path: Path
) -> None:
    path, added = MAKERS[form](tmp_path, random_pairs(layers, ranks=RANKS.get(form)))
    wanted = theirs(tiny_base, added)
    adapter = read_lora(path, layers)
    assert sorted(adapter.pairs) == sorted(LAYERS)

    (file,) = write_lora(adapter, tmp_path / "diffusers", to="diffusers")
    sampled = load_transformer(tiny_base / TRANSFORMER)
    sampled.load_lora_adapter(str(file.parent), weight_name=file.name, adapter_name="x", prefix=None)
    assert error(velocity(sampled), wanted, untrained) < ROUNDING

    write_lora(adapter, tmp_path / "peft", to="peft")
    by_peft = PeftModel.from_pretrained(load_transformer(tiny_base / TRANSFORMER), str(tmp_path / "peft"))
    assert error(velocity(by_peft), wanted, untrained) < ROUNDING

    (file,) = write_lora(adapter, tmp_path / "comfyui", to="comfyui")
    patched = load_transformer(tiny_base / TRANSFORMER)
    patched.load_state_dict(comfyui_weights(file, patched.state_dict()))
    assert error(velocity(patched), wanted, untrained) < ROUNDING


@pytest.mark.parametrize("to", ["peft", "diffusers", "comfyui"])
def test_what_is_written_is_read_again_as_the_same(
    to: Target, layers: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    adapter = read_lora(peft(tmp_path, random_pairs(layers, ranks=RANKS["peft"]))[0], layers)
    write_lora(adapter, tmp_path / "other", to=to)
    again = read_lora(tmp_path / "other", layers)
    for layer, pair in adapter.pairs.items():
        assert torch.equal(again.pairs[layer].down, pair.down)
        assert torch.equal(again.pairs[layer].up * again.pairs[layer].scale, pair.up * pair.scale)


def test_the_strength_may_be_said_where_the_file_does_not(layers: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    path, _ = ace_step(tmp_path, random_pairs(layers))
    assert {pair.scale for pair in read_lora(path, layers).pairs.values()} == {1.0}
    assert {pair.scale for pair in read_lora(path, layers, strength=2.0).pairs.values()} == {2.0}


# --- refused ----------------------------------------------------------------------------------------------------------


def refusal(path: Path, layers: dict[str, tuple[int, ...]]) -> str:
    with pytest.raises(AdapterError) as caught:
        read_lora(path, layers)
    return str(caught.value)


def changed(folder: Path, layers: dict[str, tuple[int, ...]], **changes: torch.Tensor | None) -> Path:
    """ACE-Step's file with tensors replaced, added or (None) left out, by names with `__` for dots."""
    path, _ = ace_step(folder, random_pairs(layers))
    tensors = load_file(path)
    for name, tensor in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if tensor is not None:
            tensors[name.replace("__", ".")] = tensor
    save_file(tensors, path)
    return path


A = "transformer_blocks__0__attn__to_q__lora_A__weight"
B = "transformer_blocks__0__attn__to_q__lora_B__weight"


def test_a_pickle_is_never_opened(layers: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "lora.bin").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "lora.safetensors").write_bytes(pickle.dumps(Trap()))
    torch.save({"a": torch.zeros(1)}, tmp_path / "archive.safetensors")
    for name in ("lora.bin", "lora.safetensors", "archive.safetensors"):
        assert "a pickle" in refusal(tmp_path / name, layers)
    folder = tmp_path / "only"
    folder.mkdir()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Trap()))
    assert "adapter_model.bin, a pickle" in refusal(folder, layers)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({A: None}, "has no down matrix"),
        ({B: None}, "has no up matrix"),
        ({A: torch.zeros(6, 65)}, "does not fit transformer_blocks.0.attn.to_q"),
        ({B: torch.zeros(64, 5)}, "does not fit transformer_blocks.0.attn.to_q"),
        ({A: torch.full((6, 64), torch.nan)}, "not finite"),
        ({A: torch.zeros(6, 64, dtype=torch.int8)}, "I8; a LoRA has"),
        ({"transformer_blocks__99__attn__to_q__lora_A__weight": torch.zeros(6, 64)}, "of layers that this base lacks"),
        ({"transformer_blocks__0__attn__to_q__lokr_w1": torch.zeros(2)}, "a LoKr"),
        ({"transformer_blocks__0__attn__to_q__dora_scale": torch.zeros(2)}, "a DoRA of ComfyUI's form"),
        ({"step": torch.zeros(1)}, "'step' is no part of a LoRA"),
        ({"transformer__speaker_embedder__lora_A__weight": torch.zeros(6, 512)}, "different prefixes"),
        ({"speaker_embedder__lora_down__weight": torch.zeros(6, 512)}, "are the same part of one layer"),
        ({"speaker_embedder__lora_magnitude_vector": torch.zeros(64)}, "1 of 5 layers have a DoRA's magnitude"),
    ],
)
def test_every_tensor_is_used_or_named(
    changes: dict[str, torch.Tensor | None], said: str, layers: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    assert said in refusal(changed(tmp_path, layers, **changes), layers)


def test_a_tensor_of_a_name_with_control_characters_is_shown_escaped(
    layers: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    path = changed(tmp_path, layers, **{"\x1b[2Jspeaker": torch.zeros(1)})
    assert "\x1b" not in refusal(path, layers)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "LOHA"}, "only 'LORA' is read"),
        ({"init_lora_weights": "pissa"}, "changes the base too"),
        ({"bias": "all"}, "only 'none' is read"),
        ({"lora_bias": True}, "'lora_bias'"),
        ({"modules_to_save": ["final_layer"]}, "'modules_to_save'"),
        ({"of_the_future": {"a": 1}}, "'of_the_future'"),
        ({"use_dora": True}, "use_dora"),
        ({"use_rslora": "yes"}, "use_rslora"),
        ({"lora_alpha": "32"}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": 10**400}, "lora_alpha"),
        ({"lora_alpha": True}, "lora_alpha"),
        ({"r": 8}, "says rank 8"),
        ({"rank_pattern": {}}, "whose matrices have rank 3"),
        ({"alpha_pattern": {"(a+)+b": 3}}, "only names"),
    ],
)
def test_peft_settings_that_compute_something_else_are_refused(
    changes: dict[str, object], said: str, layers: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    peft(tmp_path, random_pairs(layers, ranks=RANKS["peft"]))
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), encoding="utf-8")
    assert said in refusal(tmp_path, layers)


def test_a_strength_that_is_asked_for_makes_no_other_base_fit(
    layers: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    peft(tmp_path, random_pairs(layers, ranks=RANKS["peft"]))
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "init_lora_weights": "pissa"}), encoding="utf-8")
    with pytest.raises(AdapterError, match="changes the base too"):
        read_lora(tmp_path, layers, strength=1.0)


def test_pefts_weights_without_their_settings_have_no_strength(
    layers: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    peft(tmp_path, random_pairs(layers, ranks=RANKS["peft"]))
    (tmp_path / "adapter_config.json").unlink()
    assert "adapter_config.json is absent" in refusal(tmp_path, layers)


@pytest.mark.parametrize("alpha", [None, 2.5])
def test_two_places_that_say_another_strength_are_refused(
    alpha: float | None, layers: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    path, _ = comfyui(tmp_path, random_pairs(layers))
    tensors = {name: tensor for name, tensor in load_file(path).items() if alpha or not name.endswith(".alpha")}
    config = json.dumps({"r": 6, "lora_alpha": 32, "use_rslora": True})
    save_file(tensors, path, metadata={"lora_adapter_metadata": config})
    assert "--strength" in refusal(path, layers)
    assert {pair.scale for pair in read_lora(path, layers, strength=0.5).pairs.values()} == {0.5}


def test_a_file_that_was_cut_off_is_named(layers: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    path, _ = ace_step(tmp_path, random_pairs(layers))
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged" in refusal(path, layers)


def test_several_files_in_a_folder_are_not_chosen_from(layers: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    assert "name the file" in refusal(tmp_path, layers)


def test_a_dora_has_no_form_for_comfyui(layers: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    tensors = {f"{layer}.lora_magnitude_vector": torch.ones(layers[layer][0]) for layer in LAYERS}
    path = changed(tmp_path, layers, **{name.replace(".", "__"): tensor for name, tensor in tensors.items()})
    adapter: Adapter = read_lora(path, layers)
    assert adapter.is_dora
    with pytest.raises(AdapterError, match="no form for ComfyUI"):
        write_lora(adapter, tmp_path / "out", to="comfyui")
    assert not (tmp_path / "out").exists()
