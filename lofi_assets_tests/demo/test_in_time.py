"""A base that keeps time: the tempo in a mark before the prompt, a clock of the bar in closed form, both kept as they
are while the rest learns."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from lofi_assets.backbones.ace_step_v1.blocks import rotary_tables, rotate
from lofi_assets.backbones.ace_step_v1.loading import Base, load_base
from lofi_assets.demo.base_recipe.bar_clock import AMPLITUDE, FRAMES, GAIN, MARK, bar_keys, first_cross_attention
from lofi_assets.demo.base_recipe.genres import bar_of
from lofi_assets.demo.base_recipe.in_time import FROZEN, InTimeTask, in_time, mean_bars, start_clock, waves
from lofi_assets.demo.base_recipe.music import MusicTask
from lofi_assets.demo.base_recipe.optimizer import StageOptimizer
from lofi_assets.demo.base_recipe.settings import FULL, BeatsSettings, Training
from lofi_assets.demo.base_recipe.stage import take_step
from lofi_assets.demo.base_recipe.tempo_code import CODES, Channels, tempo_code, with_mark, with_tempo_code
from lofi_assets_tests.demo.plain_base import write_plain_base

LOFI_TEMPI = range(62, 101)
TEMPI = range(40, 201)
CHANNELS = Channels(FULL.transformer.text_width)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("plain") / "base"
    write_plain_base(folder)
    return load_base(folder, components=("transformer", "text_encoder", "lyric_tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(plain: Base) -> PreTrainedTokenizerBase:
    assert plain.tokenizer is not None
    return with_mark(plain.tokenizer)


@pytest.fixture(scope="module")
def encoder(plain: Base, tokenizer: PreTrainedTokenizerBase) -> UMT5EncoderModel:
    assert plain.text_encoder is not None
    return with_tempo_code(plain.text_encoder, tokenizer, tempi=TEMPI)


def made_task(plain: Base, settings: BeatsSettings | None = None) -> InTimeTask:
    """A plain pair made wide, before four clips of noise: three of hip hop at two tempi and another one."""
    assert plain.transformer is not None and plain.text_encoder is not None and plain.tokenizer is not None
    random = torch.Generator().manual_seed(2)
    task = MusicTask(
        plain.transformer,
        plain.text_encoder,
        tokenizer=plain.tokenizer,
        lyric_ids=[1, 2, 3],
        latents=[torch.randn(8, 16, 90, generator=random) for _ in range(4)],
        captions=["hip hop, piano, 91 bpm", "boom bap, rhodes, 82 bpm", "hip hop, bass, 91 bpm", "techno, 128 bpm"],
        bars=[28, 32, 28, 20],
        settings=FULL.transformer,
        seed=1,
    )
    settings = settings or BeatsSettings(clips=3, crops=(64,), frames_per_step=128)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return in_time(task, settings, tempi=TEMPI)


@torch.no_grad()
def states(encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> Tensor:
    """(tokens, width)."""
    found: Tensor = encoder(input_ids=tokenizer([prompt], return_tensors="pt")["input_ids"]).last_hidden_state[0]
    return found


def test_the_mark_stands_before_every_prompt_and_only_there(plain: Base, tokenizer: PreTrainedTokenizerBase) -> None:
    assert plain.tokenizer is not None and len(tokenizer) == len(plain.tokenizer)
    prompts = ["lofi, piano, 91 bpm", "vinyl crackle", ""]
    marked, bare = (t(prompts)["input_ids"] for t in (tokenizer, plain.tokenizer))
    assert marked == [[tokenizer.unk_token_id, *ids] for ids in bare]


def test_all_tempi_of_lofi_are_told_apart_whatever_stands_beside_them(
    encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    forms = (
        "{} bpm",
        "lofi, chill, rhodes, {} bpm, vinyl crackle, rainy window, instrumental",
        "boom bap, {} bpm, sad",
    )
    codes = torch.stack([tempo_code(bpm) for bpm in LOFI_TEMPI])
    for form in forms:
        heard = torch.stack([states(encoder, tokenizer, form.format(bpm))[0, CHANNELS.heard] for bpm in LOFI_TEMPI])
        norms = heard.norm(dim=-1)
        assert float(norms.min()) > 0.9 and float(norms.max()) < 1.2, form
        similarity = (heard / norms[:, None]) @ codes.T
        assert torch.allclose(similarity.diagonal(), torch.ones(len(LOFI_TEMPI)), atol=1e-3)
        others = similarity - 2 * torch.eye(len(LOFI_TEMPI))
        assert float(others.max()) < 0.7, form


def test_the_code_is_in_the_mark_alone_and_not_there_without_a_tempo(
    encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    named = states(encoder, tokenizer, "lofi, piano, mid-tempo, 91 bpm, instrumental")
    assert float(named[0, CHANNELS.heard].norm()) == pytest.approx(1.0, abs=1e-4)
    assert float(named[1:, CHANNELS.heard].norm(dim=-1).max()) < 0.01
    unnamed = states(encoder, tokenizer, "lofi, chill, rain")
    assert float(unnamed[:, CHANNELS.heard].norm(dim=-1).max()) < 0.01
    assert float(named[:, CHANNELS.old : CHANNELS.heard.start].abs().max()) == 0.0
    assert float(tempo_code(20.0).norm()) == 0.0


@pytest.mark.parametrize(
    "prompt",
    [
        "lofi, piano, mid-tempo, 91 bpm, instrumental",
        "hip hop, calm, drum machine, piano, slow, 66 bpm, clean",
        "lofi, chill, rain",
        "91 bpm",
    ],
)
def test_widening_leaves_the_states_of_words_nearly_as_they_were(
    plain: Base, encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> None:
    """The shortest prompt changes most: the mark takes the largest share of its attention."""
    assert plain.text_encoder is not None and plain.tokenizer is not None
    before = states(plain.text_encoder, plain.tokenizer, prompt)
    after = states(encoder, tokenizer, prompt)[1:, : CHANNELS.old]
    assert float((after - before).norm() / before.norm()) < 0.14
    assert float(torch.cosine_similarity(after, before).min()) > 0.98


def test_one_head_keeps_any_bar_of_lofi_with_short_rotary_periods_and_not_with_long_ones() -> None:
    bars = [bar_of(bpm) for bpm in LOFI_TEMPI]
    frames = torch.arange(FRAMES)

    def unexplained(theta: float) -> Tensor:
        query, keys = bar_keys(bars, phase=1.0, head_size=64, theta=theta)
        turned = rotate(query.float().expand(1, 1, FRAMES, -1), rotary_tables(frames, 64, theta))[0, 0]
        met = rotate(keys.float()[None, None], rotary_tables(torch.full((len(bars),), MARK), 64, theta))[0, 0]
        scores = met @ turned.T / 8
        waves = AMPLITUDE * torch.cos(2 * math.pi * frames / torch.tensor(bars)[:, None] - 1.0)
        return (scores - waves).square().mean(dim=1) / waves.square().mean(dim=1)

    assert float(unexplained(8.0).max()) < 0.005
    assert float(unexplained(300.0).max()) > 0.5


def test_the_written_heads_attend_to_the_mark_once_a_bar(plain: Base) -> None:
    """Scores of every frame on every token, of prompts that the keys were not read from."""
    task = made_task(plain)
    start_clock(task)
    attention, theta = first_cross_attention(task.transformer), task.settings.rope_theta
    frames = torch.arange(FRAMES)
    (query,) = attention.to_q.bias.detach().unflatten(0, (1, 3, 64))
    assert not attention.to_q.weight.any()
    turned = rotate(query[None, :, None].expand(1, 3, FRAMES, 64), rotary_tables(frames, 64, theta))
    for bpm in (62, 75, 91, 100):
        bar = bar_of(bpm)
        prompt = f"lofi, mellow, guitar, {bpm} bpm, vinyl crackle, instrumental"
        context = encoded(task, prompt)
        places = torch.arange(context.shape[1])
        key = rotate(attention.to_k(context).unflatten(-1, (3, 64)).transpose(1, 2), rotary_tables(places, 64, theta))
        scores = (turned @ key.transpose(-1, -2) / 8)[0].detach()
        phases = 2 * math.pi * torch.arange(3) / 3
        waves = AMPLITUDE * torch.cos(2 * math.pi * frames / bar - phases[:, None])
        error = (scores[..., MARK] - waves).square().mean().sqrt() / waves.square().mean().sqrt()
        others = scores[..., places != MARK].abs().max()
        assert float(error) < 0.02 and float(others) < 0.2, (bpm, error, others)
    written = attention.get_parameter("to_out.0.weight")[:, ::64].detach()
    assert written.square().mean(dim=0).sqrt().tolist() == pytest.approx([GAIN] * 3, rel=1e-4)


@torch.no_grad()
def encoded(task: InTimeTask, prompt: str) -> Tensor:
    """The context (1, tokens, width) of a prompt."""
    text = states(task.text_encoder, task.tokenizer, prompt)[None]
    lyrics = task.lyric_ids[None]
    context, _ = task.transformer.encode(
        text_hidden_states=text,
        text_attention_mask=torch.ones(text.shape[:2], dtype=torch.long),
        speaker_embeds=torch.zeros(1, task.settings.speaker_width),
        lyric_token_ids=lyrics,
        lyric_mask=torch.ones_like(lyrics),
    )
    return context


def test_what_is_written_has_no_gradient_and_the_same_bits_after_steps_of_muon(plain: Base) -> None:
    task = made_task(plain)
    start_clock(task)
    kept = [f"transformer.{name}" for name in FROZEN] + ["text_encoder"]
    before = {name: parameter.detach().clone() for name, parameter in task.modules.named_parameters()}
    optimizer = StageOptimizer(
        task.groups(), Training(steps=2, learning_rate=1e-3, batch=0, warmup=1, muon_rate=1e-3), task.fixed
    )
    for step in (1, 2):
        take_step(task, optimizer, step)
    for name, parameter in task.modules.named_parameters():
        frozen = any(name == part or name.startswith(f"{part}.") for part in kept)
        assert (parameter.grad is None) >= frozen, name
        assert torch.equal(parameter, before[name]) or not frozen, name
    moved = [name for name, parameter in task.modules.named_parameters() if not torch.equal(parameter, before[name])]
    assert any("transformer_blocks.0.attn" in name for name in moved) and any("blocks.3" in name for name in moved)
    assert sum(name.startswith("transformer.transformer_blocks.0.cross_attn") for name in before) >= 8


def test_a_mean_bar_is_what_clips_of_its_length_have_in_common_at_the_same_place() -> None:
    """Bars of no whole number of frames; what differs between the clips cancels out."""
    frames, random = torch.arange(300), torch.Generator().manual_seed(6)

    def clip(bar: float, sign: float) -> Tensor:
        beat = (2 * math.pi * 4 * frames / bar).cos() + 0.5 * (2 * math.pi * frames / bar).sin()
        return (beat + sign * other).expand(8, 16, -1)

    other = torch.randn(300, generator=random)
    means = mean_bars([clip(27.6, 1.0), clip(27.6, -1.0), clip(38.3, 0.0)], [27.6, 27.6, 38.3], harmonics=8)
    assert sorted(means) == [27.6, 38.3]
    for bar, weights in means.items():
        assert torch.allclose(weights @ waves(300, bar, 8), clip(bar, 0.0), atol=0.01)


def test_in_all_but_noise_the_mean_bar_stands_for_a_clip_of_hip_hop_and_for_no_other(plain: Base) -> None:
    task = made_task(plain)
    own, other = 0, 3
    for sigma, pick in ((0.9, own), (0.99, other)):
        part = task.clean(pick, frames=64, place=0.9, sigma=sigma)
        starts = range(0, 27, int(task.bars[pick]))
        assert any(torch.equal(part, task.latents[pick][..., start : start + 64]) for start in starts)
    part = task.clean(own, frames=64, place=0.9, sigma=0.99)
    assert part.shape == (8, 16, 64) and torch.equal(part, task.means[28] @ waves(64, 28, task.beats.harmonics))
    assert torch.allclose(part[..., 28:], part[..., :36], atol=1e-4)


def test_a_step_hears_its_own_clips_as_often_as_asked(plain: Base) -> None:
    task = made_task(plain)
    picks = torch.tensor(task.picks(4_000, torch.Generator().manual_seed(1)))
    assert float((picks < 3).float().mean()) == pytest.approx(BeatsSettings().own, abs=0.03)
    assert set(picks.tolist()) == {0, 1, 2, 3}
    alone = made_task(plain, replace(BeatsSettings(clips=3, crops=(64,), frames_per_step=128), own=1.0))
    assert set(alone.picks(200, torch.Generator().manual_seed(1))) == {0, 1, 2}


def test_the_channels_of_the_code_lie_side_by_side() -> None:
    ends = [CHANNELS.old, CHANNELS.word, CHANNELS.code.start - 1, CHANNELS.tempo, CHANNELS.end, CHANNELS.flag]
    assert all(first <= second for first, second in pairwise(ends))
    assert CHANNELS.code.stop - CHANNELS.code.start == CHANNELS.heard.stop - CHANNELS.heard.start == CODES
    assert CHANNELS.width == 264 >= CHANNELS.heard.stop
