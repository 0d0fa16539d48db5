"""What can be chosen for a run: each choice trains, is resumed to the same bits, and is saved as others read it."""

import copy
import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.loading import TRANSFORMER, load_transformer
from lofi_assets.quantization.merge import merge_lora
from lofi_assets.training.__main__ import _imports
from lofi_assets.training.checkpoints import state as resume
from lofi_assets.training.checkpoints.files import PEFT_WEIGHTS, checkpoint_id
from lofi_assets.training.checkpoints.runs import log_path
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.config import ConfigError, TrainingRun, TrainingSettings
from lofi_assets.training.distributed import ALONE
from lofi_assets.training.trainer.averaging import Average
from lofi_assets.training.trainer.log import read_log
from lofi_assets.training.trainer.loop import train
from lofi_assets.training.trainer.model import prepare_model
from lofi_assets.training.trainer.optimizer import (
    ESTIMATES,
    build_optimizer,
    estimates,
    learning_rate,
    restore_estimates,
)
from lofi_assets_tests.training.fixtures import MakeRun, Settings
from lofi_assets_tests.training.test_training_runs import digests, quiet

CPU = torch.device("cpu")
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes absent: 8-bit choices are NOT run here"
)
CHOICES: dict[str, Settings] = {
    "average": {"ema_decay": 0.9},
    "dora": {"lora": {"use_dora": True}},
    "ranks by layer": {"lora": {"rank_pattern": {"to_q": 2, "speaker_embedder": 6}, "alpha_pattern": {"to_v": 8}}},
    "dropout": {"lora": {"lora_dropout": 0.3}, "gradient_checkpointing": True},
    "cosine": {"schedule": "cosine"},
    "buckets": {"batch_size": 2, "accumulate": 2},
    "8-bit moments": {"optimizer": "adamw_8bit", "lora": {"r": 64}},
    "estimated rate": {"optimizer": "prodigy", "learning_rate": 1.0},
    "int8 base": {"base_quantization": "int8", "precision": "bf16-mixed"},
    "nf4 base": {"base_quantization": "nf4"},
    "nf4 blocks": {"base_quantization": "nf4", "quantized_parts": "blocks"},
    "nf4 base, dora": {"base_quantization": "nf4", "lora": {"use_dora": True}},
}


def losses(run: TrainingRun) -> list[float]:
    return [line["loss"] for line in read_log(log_path(run)) if "loss" in line]


def validation(run: TrainingRun) -> list[float]:
    return [line["validation_loss"] for line in read_log(log_path(run)) if "validation_loss" in line]


def stop_after(calls: int) -> Callable[[], bool]:
    """Asked twice before the first step of a run, and then after each."""
    asked = itertools.count(1)
    return lambda: next(asked) > calls


@needs_bitsandbytes
@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_trains_and_is_resumed_to_the_same_bits(make_run: MakeRun, choice: str) -> None:
    settings: Settings = {"learning_rate": 1e-3, **CHOICES[choice]}
    whole, stopped = (make_run(name, **settings) for name in ("whole", "stopped"))
    train(whole, say=quiet)
    assert train(stopped, say=quiet, stop=stop_after(6)).interrupted
    assert 0 < train(stopped, say=quiet).steps_now < 6
    assert digests(stopped) == digests(whole) and set(digests(whole)) == {3, 6}
    assert losses(stopped) == losses(whole)
    assert [fault(whole.checkpoints_dir / checkpoint_id(step)) for step in (3, 6)] == [None, None]


def state_of(run: TrainingRun) -> dict[str, torch.Tensor]:
    return load_file(resume.resume_point(run.checkpoints_dir).folder / resume.TENSORS)


@torch.no_grad()
def velocity(transformer: torch.nn.Module) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 20, (1, 4), generator=random)
    return transformer(
        hidden_states=torch.randn(1, 8, 16, 12, generator=random),
        attention_mask=None,
        text_hidden_states=torch.randn(1, 5, 32, generator=random),
        text_attention_mask=torch.ones(1, 5, dtype=torch.long),
        speaker_embeds=torch.randn(1, 512, generator=random),
        lyric_token_ids=ids,
        lyric_mask=torch.ones_like(ids),
        timestep=torch.tensor([500.0]),
    ).sample


def test_an_average_is_what_is_judged_and_saved_and_leaves_training_alone(make_run: MakeRun) -> None:
    plain, averaged = make_run("plain", learning_rate=1e-3), make_run("averaged", learning_rate=1e-3, ema_decay=0.5)
    for run in (plain, averaged):
        train(run, say=quiet)
    assert losses(plain) == losses(averaged)
    assert digests(plain) != digests(averaged)
    raw, state = state_of(plain), state_of(averaged)
    saved = load_file(averaged.checkpoints_dir / checkpoint_id(6) / PEFT_WEIGHTS)
    for name, tensor in saved.items():
        stored = name.removeprefix("base_model.model.")
        assert state[f"{stored}/weight"].equal(raw[f"{stored}/weight"])
        assert state[f"{stored}/average"].equal(tensor)
    curves = [validation(run) for run in (plain, averaged)]
    assert curves[0][0] == curves[1][0] and curves[0][1:] != curves[1][1:]


def test_an_average_forgets_its_start_and_gives_the_weights_back() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    average = Average.of({"x": parameter}, decay=0.9)
    parameter.data.fill_(1.0)
    values = []
    for step in range(1, 201):
        average.update(step)
        values.append(float(average.tensors["x"]))
    assert values[0] == pytest.approx(1 - 2 / 11) and values[-1] == pytest.approx(1.0, abs=1e-6)
    average.tensors["x"].fill_(3.0)
    with average.applied():
        assert parameter.detach().tolist() == [3.0]
    assert parameter.detach().tolist() == [1.0]


def test_a_dora_checkpoint_is_read_by_peft_and_merged_at_its_trained_strength(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(learning_rate=1e-2, max_steps=3, lora={"use_dora": True})
    train(run, say=quiet)
    folder = run.checkpoints_dir / checkpoint_id(3)
    backbone = prepare_model(run, device=CPU, processes=ALONE)
    untrained = velocity(backbone.model)
    optimizer = torch.optim.AdamW(backbone.parameters.values())
    resume.restore_state(resume.resume_point(run.checkpoints_dir), parameters=backbone.parameters, optimizer=optimizer)
    expected = velocity(backbone.model)
    by_peft = velocity(PeftModel.from_pretrained(load_transformer(run.base / TRANSFORMER), folder))
    report = merge_lora(run.base, folder, tmp_path / "merged", backbone=ACE_STEP_V1)
    merged = velocity(load_transformer(tmp_path / "merged" / TRANSFORMER))
    moved = float((expected - untrained).abs().max())
    assert moved > 1e-3
    assert float((by_peft - expected).abs().max()) < 1e-5 * moved
    assert report.adapter_effect > 1e-3 and float((merged - expected).abs().max()) < 1e-3 * moved


@needs_bitsandbytes
@pytest.mark.parametrize(("parts", "layers"), [("attention", 8), ("blocks", 10)])
@pytest.mark.parametrize(("bits", "dtype"), [("int8", torch.int8), ("nf4", torch.uint8)])
def test_only_what_may_go_below_8_bits_is_quantized(
    make_run: MakeRun, bits: str, dtype: torch.dtype, parts: str, layers: int
) -> None:
    run = make_run(base_quantization=bits, quantized_parts=parts, precision="bf16-mixed")
    backbone = prepare_model(run, device=CPU, processes=ALONE)
    dtypes = {name: weight.dtype for name, weight in backbone.model.named_parameters() if not weight.requires_grad}
    quantized = {name for name, kind in dtypes.items() if kind == dtype}
    assert len(quantized) == 4 * layers  # blocks; projections of both attentions, convolutions of one frame
    assert all(name.startswith("transformer_blocks.") for name in quantized)
    assert sum("attn.to_" in name for name in quantized) == 4 * 8
    assert not [name for name in quantized if "depth_conv" in name]
    assert {kind for name, kind in dtypes.items() if name not in quantized} == {torch.bfloat16}
    assert {parameter.dtype for parameter in backbone.parameters.values()} == {torch.float32}
    plain = prepare_model(make_run(), device=CPU, processes=ALONE)
    assert list(plain.parameters) == list(backbone.parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantization_error = (velocity(backbone.model.to(torch.bfloat16)) - velocity(plain.model)).abs().max()
    assert 0 < float(quantization_error) < 0.2


@needs_bitsandbytes
@pytest.mark.parametrize(("bits", "seen"), [("none", False), ("nf4", True)])
def test_while_a_trainer_imports_bitsandbytes_is_there_for_a_quantized_base_alone(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, bits: str, seen: bool
) -> None:
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    with _imports(make_run(base_quantization=bits)):
        assert (importlib.util.find_spec("bitsandbytes") is not None) is seen
    assert importlib.util.find_spec("bitsandbytes") is not None


@needs_bitsandbytes
def test_8_bit_moments_are_kept_in_8_bits(make_run: MakeRun) -> None:
    run = make_run(optimizer="adamw_8bit", lora={"r": 64})
    train(run, say=quiet)
    kinds = {tensor.dtype for name, tensor in state_of(run).items() if name.endswith("/state1")}
    assert torch.uint8 in kinds


@pytest.mark.parametrize("choice", [{"optimizer": "adamw_8bit"}, {"base_quantization": "nf4"}])
def test_an_absent_library_is_named_with_the_setting_that_needs_it(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, choice: dict
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    ((setting, value),) = choice.items()
    with pytest.raises(ConfigError, match=rf"training\.{setting} '{value}' needs .*pip install"):
        train(make_run(**choice), say=quiet)


def test_an_estimated_rate_is_in_the_log_and_in_the_saved_state(make_run: MakeRun) -> None:
    run = make_run(optimizer="prodigy", learning_rate=1.0, max_steps=2, checkpoint_interval=2)
    train(run, say=quiet)
    found = [line["d"] for line in read_log(log_path(run)) if "loss" in line]
    point = resume.resume_point(run.checkpoints_dir)
    assert point is not None and len(found) == 2
    assert point.extra["estimates"].keys() == set(ESTIMATES) and point.extra["estimates"]["d"] == found[-1]
    assert point.extra["estimates"]["k"] == 2


def test_the_rate_is_estimated_from_far_too_small_and_goes_on_from_what_was_saved() -> None:
    """A quadratic with its minimum at distance 10: the estimate rises from 1e-6 by four orders."""
    settings = TrainingSettings(optimizer="prodigy", learning_rate=1.0, weight_decay=0.0)

    def start() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        parameter = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
        return parameter, build_optimizer(settings, [parameter])

    def step(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        parameter.grad = 2 * (parameter.detach() - 5.0)
        optimizer.step()

    parameter, optimizer = start()
    for _ in range(30):
        step(parameter, optimizer)
    middle, known, states = parameter.detach().clone(), estimates(optimizer), optimizer.state_dict()["state"]
    assert 1e-2 < known["d"] < 20 and float((middle - 5).norm()) < 10
    other, again = start()
    other.data.copy_(middle)
    groups = again.state_dict()["param_groups"]
    again.load_state_dict({"state": copy.deepcopy(states), "param_groups": groups})
    restore_estimates(again, known)
    for _ in range(20):
        step(parameter, optimizer)
        step(other, again)
    assert torch.equal(other, parameter) and estimates(again) == estimates(optimizer)
    assert float((parameter.detach() - 5).norm()) < 1


def test_of_adamw_nothing_is_estimated(make_run: MakeRun) -> None:
    run = make_run(max_steps=1, checkpoint_interval=1)
    train(run, say=quiet)
    point = resume.resume_point(run.checkpoints_dir)
    assert point is not None and point.extra["estimates"] == {}
    assert all("d" not in line for line in read_log(log_path(run)))


def test_prodigy_says_nothing_and_is_named_where_it_is_absent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TrainingSettings(optimizer="prodigy", learning_rate=1.0)
    parameter = torch.nn.Parameter(torch.ones(2))
    (group,) = build_optimizer(settings, [parameter]).param_groups
    assert group["decouple"] and group["weight_decay"] == settings.weight_decay
    assert capsys.readouterr() == ("", "")
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(
        ConfigError, match=r"training\.optimizer 'prodigy' needs .*pip install 'lofi_assets\[prodigy\]'"
    ):
        build_optimizer(settings, [parameter])


@pytest.mark.parametrize("rate", [1e-4, 100.0])
def test_a_rate_of_adamw_is_no_factor_for_prodigy(rate: float) -> None:
    """1e-4 would train nothing, and no number would say so."""
    with pytest.raises(ValueError, match=r"learning_rate .* is a factor: set learning_rate 1\.0"):
        TrainingSettings(optimizer="prodigy", learning_rate=rate)


# dynamo looks for a gradient on what it fakes
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.slow
def test_compiled_blocks_give_the_same_loss_and_names_and_are_compiled_once_for_all_lengths(make_run: MakeRun) -> None:
    steps: Settings = {"max_steps": 3, "checkpoint_interval": 3, "validation_limit": 0}
    plain, compiled = (make_run(str(choice), compile=choice, **steps) for choice in (False, True))
    before = counters["stats"]["unique_graphs"]
    for run in (plain, compiled):
        train(run, say=quiet)
    assert (
        counters["stats"]["unique_graphs"] - before == 2
    )  # the first block, whose input asks for no gradient, and the rest
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    assert state_of(compiled).keys() == state_of(plain).keys()
    model = prepare_model(compiled, device=CPU, processes=ALONE).model
    assert model.state_dict().keys() == prepare_model(plain, device=CPU, processes=ALONE).model.state_dict().keys()


def test_a_cosine_falls_slowly_at_both_ends() -> None:
    settings = TrainingSettings(warmup_steps=10, max_steps=109, schedule="cosine")
    rates = [learning_rate(settings, step) for step in range(10, 111)]
    assert rates[0] == pytest.approx(1e-4) and rates[-2] > 0 and rates[-1] == 0
    assert rates[50] == pytest.approx(5e-5)
    assert rates[0] - rates[10] < 0.3 * (rates[45] - rates[55]) and rates[90] < 0.3 * (rates[45] - rates[55])


@pytest.mark.parametrize(
    "choice",
    [
        {"parallel": "fsdp", "base_quantization": "int8"},
        {"parallel": "fsdp", "optimizer": "adamw_8bit"},
        {"parallel": "fsdp", "optimizer": "prodigy", "learning_rate": 1.0},
        {"compile": True, "base_quantization": "nf4"},
        {"compile": True, "parallel": "fsdp"},
    ],
)
def test_choices_that_do_not_work_together_are_refused_before_anything_is_loaded(choice: Settings) -> None:
    with pytest.raises(ValueError, match=r"set .*parallel 'ddp'"):
        TrainingSettings(**choice)
