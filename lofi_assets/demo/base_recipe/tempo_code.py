"""A text encoder that says the tempo of a prompt at one fixed place: in a mark before its first word.

A clock in cross-attention counts from the place of the token that it hears, and the word for a tempo stands anywhere
(decision 011, "A clock needs a fixed place to count from"). So the tokenizer puts a mark before every prompt, and a
trained text encoder gets channels that learn nothing:

    word      1 in every word, 0 in the mark        end     1 in the end token
    code      `tempo_code` in the word of a tempo   flag    so large in the mark that nothing else scales it
    tempo     1 in the word of a tempo              heard   what the mark has heard of `code`

In the first layer new heads copy `code` of the word that has `tempo` into `heard` of the mark. Every other word looks
at the end token instead, which has no code. The old channels go on as they were, up to the norms, which now see the new
ones too, and up to the mark, which takes its share of each attention (3 to 13 % of the states of the shipped base).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from lofi_assets.backbones.ace_step_v1.tiny import END, PAD, UNKNOWN, WORD_START

CODES = 64
FINE = range(58, 106)
"""BPM that have a number of the code each; what is left of `CODES` is spread over `COARSE`."""
COARSE = (107.0, 158.0)
FINE_WIDTH, COARSE_WIDTH = 0.8, 2.7
"""Standard deviations of the numbers' bells, in BPM."""
STRENGTH = 0.25
"""Of a new channel, in norms of a word."""
FLAG_STRENGTH = 400.0
"""Of the mark's flag, in new channels."""
HEARD_STRENGTH = 0.05
"""Of what the mark hears, in its flag."""
SCORE, END_SCORE = 20.0, 8.0
"""Attention scores of the mark on the word of a tempo, and of words on the end token; attention to all else is 0."""
TYPICAL_ENERGY = 1.12
"""Squared norm of a word with its new channels, in that without."""
ROUND_TO = 8
REFERENCE = "lofi, piano, mid-tempo, 91 bpm, instrumental"
"""A prompt whose mark has a code of norm 1."""


@dataclass(frozen=True)
class Channels:
    """Where the new channels lie behind the `old` ones."""

    old: int

    @property
    def word(self) -> int:
        return self.old

    @property
    def code(self) -> slice:
        return slice(self.word + 1, self.word + 1 + CODES)

    @property
    def tempo(self) -> int:
        return self.word + 1 + CODES

    @property
    def end(self) -> int:
        return self.tempo + 1

    @property
    def flag(self) -> int:
        return self.end + 1

    @property
    def heard(self) -> slice:
        return slice(self.flag + 1, self.flag + 1 + CODES)

    @property
    def width(self) -> int:
        """All channels, rounded up."""
        used = self.flag + 1 + CODES
        return math.ceil(used / ROUND_TO) * ROUND_TO


def tempo_code(bpm: float) -> Tensor:
    """(64,) of norm 1: exp(-((bpm - c_i) / w_i)^2 / 2) over its norm, c_i every BPM from 58 to 105 and coarser to 158.

    Far outside these it is 0.
    """
    centres = torch.cat([torch.tensor(FINE, dtype=torch.float32), torch.linspace(*COARSE, CODES - len(FINE))])
    widths = torch.where(centres < COARSE[0], FINE_WIDTH, COARSE_WIDTH)
    bells = torch.exp(-0.5 * ((bpm - centres) / widths).square())
    code: Tensor = bells / bells.norm().clamp(min=1e-3)
    return code


def with_mark(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """The tokenizer with a mark, the unknown token, before every text; its vocabulary stays.

    A prompt of the taxonomy's words holds no unknown token. A character outside the vocabulary would be a second mark.
    """
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    specials = [(token, backend.token_to_id(token)) for token in (UNKNOWN, END)]
    backend.post_processor = TemplateProcessing(single=f"{UNKNOWN} $A {END}", special_tokens=specials)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)


@torch.no_grad()
def with_tempo_code(encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase, *, tempi: range) -> UMT5EncoderModel:
    """A wider text encoder that knows what a trained one knows, and the tempo.

    Args:
        encoder: of any width; it stays as it is.
        tokenizer: one that puts the mark (`with_mark`).
        tempi: BPM that have a word of their own.
    Returns:
        An encoder in evaluation mode, `Channels(width).width` wide: the first states are those of `encoder`, and in the
        mark `Channels(width).heard` is `tempo_code` of the prompt's tempo, times about 1; elsewhere, and without a
        tempo, it is 0.
    """
    channels, head = Channels(encoder.config.d_model), encoder.config.d_kv
    heads = encoder.config.num_heads + math.ceil(CODES / head)
    wide = UMT5EncoderModel(
        UMT5Config(**{**encoder.config.to_dict(), "d_model": channels.width, "num_heads": heads})
    ).eval()
    _copy(encoder, wide, channels)
    unit = STRENGTH * float(encoder.shared.weight.square().sum(dim=-1).mean().sqrt())
    _write_words(wide.shared.weight, channels, unit, tokenizer, tempi)
    _write_heads(wide, channels, unit, first=encoder.config.num_heads)
    final = wide.encoder.final_layer_norm.weight
    final[channels.old :] = 0.0
    final[channels.heard] = 1.0
    inputs = tokenizer([REFERENCE], return_tensors="pt")
    heard = wide(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    final[channels.heard] = 1.0 / heard[0, 0, channels.heard].norm()
    return wide


def _copy(encoder: UMT5EncoderModel, wide: UMT5EncoderModel, channels: Channels) -> None:
    """The old weights in the corner of the new ones, all else 0; norms divide by the root mean square of more."""
    old = dict(encoder.named_parameters())
    shrunk = math.sqrt(channels.old / channels.width)
    for name, parameter in wide.named_parameters():
        corner = tuple(slice(size) for size in old[name].shape)
        is_norm = parameter.ndim == 1
        parameter.fill_(1.0 if is_norm else 0.0)
        parameter[corner] = old[name] * (shrunk if is_norm else 1.0)


def _write_words(
    words: Tensor, channels: Channels, unit: float, tokenizer: PreTrainedTokenizerBase, tempi: range
) -> None:
    """New channels of every token."""
    words[:, channels.word] = unit
    for bpm in tempi:
        token = tokenizer.convert_tokens_to_ids(f"{WORD_START}{bpm}")
        words[token, channels.code] = unit * tempo_code(bpm)
        words[token, channels.tempo] = unit
    words[tokenizer.eos_token_id, channels.end] = unit
    words[tokenizer.unk_token_id] = 0.0
    words[tokenizer.unk_token_id, channels.flag] = FLAG_STRENGTH * unit


def _write_heads(wide: UMT5EncoderModel, channels: Channels, unit: float, *, first: int) -> None:
    """Heads from `first` on, each of which copies its share of the code."""
    attention, size = wide.encoder.block[0].layer[0].SelfAttention, wide.config.d_kv
    # a word's new channel, and the mark's flag, after the norm
    word = STRENGTH / math.sqrt(TYPICAL_ENERGY) * math.sqrt(channels.width)
    flag = math.sqrt(channels.width)
    query, key, value, out = (_weight(attention, name) for name in ("q", "k", "v", "o"))
    for start in range(0, CODES, size):
        row = first * size + start
        query[row, channels.word], key[row, channels.end] = 1 / word, END_SCORE / word
        query[row + 1, channels.flag], key[row + 1, channels.tempo] = 1 / flag, SCORE / word
        for place in range(min(size, CODES - start)):
            value[row + place, channels.code.start + start + place] = 1 / word
            out[channels.heard.start + start + place, row + place] = HEARD_STRENGTH * FLAG_STRENGTH * unit


def _weight(module: nn.Module, name: str) -> Tensor:
    layer = getattr(module, name)
    assert isinstance(layer, nn.Linear)
    return layer.weight
