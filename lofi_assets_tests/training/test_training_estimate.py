"""The plan's arithmetic is that of the published model, and its formulas are what a step really takes."""

import itertools
from pathlib import Path
from typing import Literal

import pytest
import torch
from click.testing import CliRunner
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.sizes import ModelSize
from lofi_assets.cli.main import main
from lofi_assets.profiles import load_profile
from lofi_assets.training.config import TrainingSettings, load_lora_settings
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.planning import profile_plan as training_plan
from lofi_assets.training.planning.cards import Card
from lofi_assets.training.planning.memory import Choices, Workload, device_memory, saved_activations, step_operations
from lofi_assets.training.planning.model_size import measure
from lofi_assets.training.planning.plan import make_plan, remedies
from lofi_assets.training.planning.text import does_not_fit, plan_text
from lofi_assets.training.settings import training_settings
from lofi_assets.training.trainer.adapters import add_lora
from lofi_assets_tests.backbones.live_bytes import LiveBytes
from lofi_assets_tests.conftest import REPOSITORY

LORA = load_lora_settings(REPOSITORY / "config" / "lofi_lora_config.json")
SMALL = LoraSettings(r=32, lora_alpha=32, target_modules=LORA.target_modules)
WORK = Workload(frames=200, tokens={"text": 40, "lyrics": 60}, tracks=10, minutes=20.0, source="test")
CARD = Card("a 24 GB card", 24e9, 165.0)


@pytest.fixture(scope="module")
def published() -> ModelSize:
    return measure(ACE_STEP_V1, None, LORA)


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelSize]:
    """A base folder with a transformer of the published proportions, 6 blocks of 256."""
    base = tmp_path_factory.mktemp("medium")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ACEStepTransformer2DModel(
            num_layers=6,
            attention_head_dim=128,
            num_attention_heads=2,
            text_embedding_dim=64,
            speaker_embedding_dim=32,
            lyric_encoder_vocab_size=100,
            lyric_hidden_size=64,
            lyric_num_blocks=2,
            lyric_attention_heads=4,
            lyric_linear_units=128,
            lyric_output_size=64,
            patch_embed_mult=16,
            build_projectors=False,
            drop_dead_projections=True,
        ).save_pretrained(base / "ace_step_transformer")
    return base, measure(ACE_STEP_V1, base, SMALL)


def trainable(base: Path, choices: Choices, *, lora: LoraSettings = SMALL) -> ACEStepTransformer2DModel:
    dtype = torch.bfloat16 if choices.precision == "bf16-mixed" else torch.float32
    transformer = ACEStepTransformer2DModel.from_pretrained(str(base / "ace_step_transformer"), torch_dtype=dtype)
    add_lora(transformer, lora, seed=0)
    if choices.gradient_checkpointing:
        transformer.recompute_blocks()
    return transformer.eval()


def loss_of(transformer: ACEStepTransformer2DModel, choices: Choices) -> torch.Tensor:
    """One forward pass at the work's full size."""
    dtype, batch = transformer.dtype, choices.batch_size
    text = torch.ones(batch, WORK.tokens["text"], 64, dtype=dtype)
    lyrics = torch.ones(batch, WORK.tokens["lyrics"], dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        context, mask = transformer.encode(
            text_hidden_states=text,
            text_attention_mask=torch.ones(batch, WORK.tokens["text"], dtype=torch.long),
            speaker_embeds=torch.zeros(batch, 32, dtype=dtype),
            lyric_token_ids=lyrics,
            lyric_mask=lyrics,
        )
        velocity = transformer.decode(
            hidden_states=torch.ones(batch, 8, 16, WORK.frames, dtype=dtype),
            attention_mask=None,
            encoder_hidden_states=context,
            encoder_hidden_mask=mask,
            timestep=torch.full((batch,), 500.0),
        )
    return velocity.float().square().mean()


def test_the_published_model_is_counted_as_the_facts_say(published: ModelSize) -> None:
    dead, projectors = 629_391_360, 87_840_512
    assert sum(published.parts.values()) == 3_305_659_264 - dead - projectors
    assert published.adapter == 261_881_856
    assert sum(published.parts[part] for part in ("attention", "feed-forward")) == 3_069_726_720 - dead


@pytest.mark.parametrize("checkpointing", [True, False], ids=["recomputed", "kept"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "32"])
@pytest.mark.parametrize(("batch", "dropout"), [(1, 0.0), (3, 0.0), (1, 0.1)])
def test_saved_activations_are_what_autograd_keeps(
    medium: tuple[Path, ModelSize],
    precision: Literal["bf16-mixed", "32"],
    checkpointing: bool,
    batch: int,
    dropout: float,
) -> None:
    base, size = medium
    lora = SMALL.model_copy(update={"lora_dropout": dropout})
    size = measure(ACE_STEP_V1, base, lora) if dropout else size
    choices = Choices(precision=precision, gradient_checkpointing=checkpointing, batch_size=batch)
    transformer = trainable(base, choices, lora=lora)
    weights = {parameter.untyped_storage()._cdata for parameter in transformer.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(transformer, choices)
    counted = sum(storage.nbytes() for storage in kept.values())
    assert loss.isfinite()
    assert saved_activations(size, choices, WORK) == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize("checkpointing", [True, False], ids=["recomputed", "kept"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "32"])
def test_the_largest_phase_is_the_peak_of_a_step(
    medium: tuple[Path, ModelSize], precision: Literal["bf16-mixed", "32"], checkpointing: bool
) -> None:
    base, size = medium
    choices = Choices(precision=precision, gradient_checkpointing=checkpointing)
    transformer = trainable(base, choices)
    trained = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    with LiveBytes(transformer.parameters()) as live:
        loss_of(transformer, choices).backward()
    phases = device_memory(size, choices, WORK, on_gpu=False).phases
    expected = max(term.bytes for term in phases if term.part in ("forward pass", "backward pass"))
    assert sum(parameter.numel() for parameter in trained) == size.adapter
    assert expected == pytest.approx(live.peak, rel=0.1)


@pytest.mark.parametrize("checkpointing", [True, False], ids=["recomputed", "kept"])
def test_the_operations_of_a_step_are_counted_right(medium: tuple[Path, ModelSize], checkpointing: bool) -> None:
    base, size = medium
    choices = Choices(precision="32", gradient_checkpointing=checkpointing, batch_size=2)
    transformer = trainable(base, choices)
    # the fused attention of a CPU is not among the operations that torch counts
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss_of(transformer, choices).backward()
    assert step_operations(size, choices, WORK) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_production_fits_a_24_gb_card(published: ModelSize) -> None:
    plan = make_plan(
        published, training_settings(load_profile("production")), training_plan.assumed_workload(ACE_STEP_V1), CARD
    )
    assert plan.fits and 9e9 < plan.memory.total < 16e9
    text = plan_text(plan)
    assert "261,881,856 x 8 B" in text and "fits" in text and "TFLOP per step" in text


def test_rank_is_never_offered_to_make_it_fit(published: ModelSize) -> None:
    settings = TrainingSettings(gradient_checkpointing=False, batch_size=2)
    plan = make_plan(published, settings, training_plan.assumed_workload(ACE_STEP_V1), Card("a small card", 9e9, 100.0))
    offers = remedies(plan)
    assert offers[0].change == "gradient_checkpointing: true"
    assert not [offer for offer in offers if offer.change.startswith(("r:", "lora"))]
    assert offers[-1].total <= 9e9 < offers[-2].total
    assert all(later.total <= earlier.total for earlier, later in itertools.pairwise(offers))
    said = does_not_fit(plan, free=9e9)
    assert "the constitution fixes r = 256" in said and "adamw_8bit" in said and "--force" in said


def test_recorded_passes_take_their_memory_once_more_and_are_given_up_first(published: ModelSize) -> None:
    work, small = training_plan.assumed_workload(ACE_STEP_V1), Card("a small card", 12e9, 100.0)
    plain, recorded = (
        make_plan(published, TrainingSettings(cuda_graphs=graphs), work, small) for graphs in (False, True)
    )
    passes = max(term.bytes for term in plain.memory.phases[:2])
    assert recorded.memory.used - plain.memory.used == pytest.approx(passes + 4 * published.adapter)
    assert plain.fits and not recorded.fits
    assert [(offer.change, offer.total) for offer in remedies(recorded)] == [("cuda_graphs: false", plain.memory.total)]


def test_whole_blocks_in_4_bits_are_the_last_thing_offered(published: ModelSize) -> None:
    work = training_plan.assumed_workload(ACE_STEP_V1)
    attention, blocks = (
        device_memory(published, Choices(base_quantization="nf4", quantized_parts=parts), work, on_gpu=True).used
        for parts in ("attention", "blocks")
    )
    assert attention - blocks == pytest.approx((2 - 0.5625) * published.parts["feed-forward"])
    offers = remedies(make_plan(published, TrainingSettings(), work, Card("a small card", 6e9, 100.0)))
    assert offers[-1].change == "quantized_parts: blocks" and offers[-1].total < 6e9 < offers[-2].total


def test_a_change_that_does_not_lower_the_peak_is_not_offered(published: ModelSize) -> None:
    """The step of an optimiser without a fused kernel is the peak here, and it has no frames to crop."""
    plan = make_plan(
        published, TrainingSettings(), training_plan.assumed_workload(ACE_STEP_V1), Card("a small machine", 10e9, None)
    )
    assert [offer.change for offer in remedies(plan)] == ["optimizer: adamw_8bit"]


def test_more_than_everything_offered_says_so(published: ModelSize) -> None:
    plan = make_plan(
        published, TrainingSettings(), training_plan.assumed_workload(ACE_STEP_V1), Card("a tiny card", 3e9, 30.0)
    )
    assert "base_quantization: nf4" in [offer.change for offer in remedies(plan)]
    assert "Even all of this does not fit" in plan_text(plan)


def test_the_command_prints_the_plan_of_the_real_model_before_there_is_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOFI_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(training_plan, "_free_disk", lambda folder: 200e9)
    options = ["train", "--plan", "--profile", "production", "--memory", "24", "--longest", "240", "--hours", "24"]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    assert "2583 frames (240 s)" in result.output and "longest as told" in result.output
    assert "of 24.0 GB: fits" in result.output and "asked for: 100,000 steps in 24 h" in result.output
    assert list(tmp_path.iterdir()) == []
    assert CliRunner().invoke(main, [*options[:4], "--memory", "6"]).exit_code == 1


SIZES = {"8gb": 8e9, "12gb": 12e9, "16gb": 16e9, "24gb": 24e9, "80gb": 80e9}
COSTLY: dict[str, dict[str, object]] = {
    "8gb": {"base_quantization": "int8", "optimizer": "adamw"},
    "12gb": {"gradient_checkpointing": False},
    "16gb": {"crop_frames": None},
    "24gb": {},
    "80gb": {},
}
"""What a profile gives up -> what `production` has, or the next better."""


def test_a_profile_for_a_card_fits_it_by_the_plan_and_gives_up_nothing_that_it_need_not(published: ModelSize) -> None:
    """GB as 10^9 bytes: a card sold as 8 GB has 8.6 of these. On the longest track that the constitution allows."""
    production, work = load_profile("production"), training_plan.assumed_workload(ACE_STEP_V1)
    assert production.lora == {}

    def total(settings: TrainingSettings) -> float:
        return device_memory(published, Choices.of(settings), work, on_gpu=True).total

    for card, memory in SIZES.items():
        profile = load_profile(f"production-{card}")
        settings = training_settings(profile)
        assert profile.lora == production.lora, card
        assert 0.6 * memory < total(settings) <= memory, card
        given_up = {name: value for name, value in COSTLY[card].items() if getattr(settings, name) != value}
        assert given_up == COSTLY[card], card
        for name, value in given_up.items():
            assert total(settings.model_copy(update={name: value})) > memory, f"{card}: {name} could be {value}"
