"""A tiny base model with random weights, in the very folder layout of the Hub repository.

For the demo profile and the tests: the loader, the feature cache, training, sampling and export run on it as they run
on the published model. It has learnt nothing; what it generates is coloured noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from transformers import UMT5Config, UMT5EncoderModel

from lofi_assets.backbones.ace_step_v1.loading import DCAE, TEXT_ENCODER, TRANSFORMER, VOCODER
from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1, HiFiGANGenerator, NormedConv, NormedUpsample
from lofi_assets.progress import transformers_bars_on_terminals

TEXT_WIDTH = 32
LATENT_CHANNELS = 8
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.-'&/"
WORDS = (
    "lofi hip hop chill chillhop beats study jazz jazzy piano rhodes guitar bass drums vinyl crackle tape warm mellow",
    "rain rainy night sleep ambient dreamy nostalgic melancholic relaxed calm peaceful happy sad slow medium fast",
    "tempo instrumental no vocals bpm boom bap dusty analog synth pad keys strings saxophone flute trumpet acoustic",
    "electric soft swing groove bossa nova soul funk city cafe coffee morning evening summer winter ocean forest lo",
)
LANGUAGES = ("en", "de", "fr", "es", "it", "pt")
LYRIC_CHARACTERS = "abcdefghijklmnopqrstuvwxyzàáâäçèéêëíîïñóôöùúûüß!'(),-./:;?"
MARKS = ("[intro]", "[verse]", "[chorus]", "[bridge]", "[outro]")


def write_tiny_base(directory: Path, *, seed: int = 0) -> None:
    """Write the four folders and a character vocabulary for lyrics; the same bytes for the same seed."""
    directory.mkdir(parents=True, exist_ok=True)
    lyric_ids = write_lyric_vocabulary(directory / LYRIC_VOCABULARY)
    text_ids = write_text_tokenizer(directory / TEXT_ENCODER, " ".join(WORDS).split())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _transformer(lyric_ids).save_pretrained(directory / TRANSFORMER)
        _dcae().save_pretrained(directory / DCAE)
        _vocoder().save_pretrained(directory / VOCODER)
        with transformers_bars_on_terminals():
            _text_encoder(text_ids).save_pretrained(directory / TEXT_ENCODER)


def _transformer(lyric_ids: int) -> ACEStepTransformer2DModel:
    model: ACEStepTransformer2DModel = ACEStepTransformer2DModel(
        num_layers=4,
        inner_dim=64,
        attention_head_dim=16,
        num_attention_heads=4,
        text_embedding_dim=TEXT_WIDTH,
        ssl_encoder_depths=(1, 1),
        ssl_latent_dims=(32, 24),
        lyric_encoder_vocab_size=lyric_ids,
        lyric_hidden_size=32,
        lyric_num_blocks=2,
        lyric_attention_heads=4,
        lyric_linear_units=64,
        lyric_output_size=32,
        patch_embed_mult=16,
    )
    model.eval()
    return model


def _dcae() -> AutoencoderDC:
    model: AutoencoderDC = AutoencoderDC(
        in_channels=2,
        latent_channels=LATENT_CHANNELS,
        attention_head_dim=8,
        encoder_block_types=("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 16, 16, 32),
        decoder_block_out_channels=(8, 16, 16, 32),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (5,), (5,)),
        decoder_qkv_multiscales=((), (), (5,), (5,)),
        upsample_block_type="interpolate",
        downsample_block_type="Conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    model.eval()
    return model


def _vocoder() -> ADaMoSHiFiGANV1:
    model: ADaMoSHiFiGANV1 = ADaMoSHiFiGANV1(
        depths=(1, 1, 1, 1),
        dims=(16, 16, 24, 32),
        num_mels=32,
        upsample_initial_channel=128,
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
    )
    make_audible(model.head)
    model.eval()
    return model


def make_audible(head: HiFiGANGenerator) -> None:
    """Scale the kernels so that noise keeps its variance through the stages and leaves at about 0.1 rms.

    With the usual start the output would be silence, and silence cannot be measured by anything downstream.
    """
    silu_power = 0.355  # mean square of silu(x) for standard normal x
    for name, module in head.named_modules():
        if isinstance(module, NormedUpsample):
            taken = module.weight_v.shape[0] / (module.weight_v.shape[1] * module.rate)
            module.weight_g.data.fill_((silu_power * taken) ** -0.5)
        elif isinstance(module, NormedConv):
            module.weight_g.data.fill_(0.3 if ".convs2." in name else silu_power**-0.5)
    head.conv_pre.weight_g.data.fill_(1.0)
    # the last stage's activation has a mean above zero: a kernel that sums to zero leaves no constant offset
    head.conv_post.weight_v.data -= head.conv_post.weight_v.data.mean(dim=-1, keepdim=True)
    head.conv_post.weight_g.data.fill_(0.12)


def _text_encoder(vocabulary: int) -> UMT5EncoderModel:

    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    model: UMT5EncoderModel = UMT5EncoderModel(config).eval()
    return model


def write_text_tokenizer(directory: Path, vocabulary: Sequence[str]) -> int:
    """A Unigram tokenizer that knows the words of a vocabulary and spells the rest; returns its size."""
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Metaspace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    specials = [(PAD, 0.0), (END, 0.0), (UNKNOWN, 0.0)]
    letters = [(letter, -8.0) for letter in dict.fromkeys(WORD_START + CHARACTERS)]
    words = [(WORD_START + word, -4.0) for word in vocabulary]
    tokenizer = Tokenizer(Unigram([*specials, *letters, *words], unk_id=2, byte_fallback=False))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.post_processor = TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)
    fast.save_pretrained(directory)
    return len(fast)


def write_lyric_vocabulary(path: Path) -> int:
    """A character-level vocabulary in the format of upstream's vocab.json; returns its size."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import Whitespace

    specials = ["[STOP]", "[UNK]", "[SPACE]", "[START]", *(f"[{language}]" for language in LANGUAGES)]
    vocabulary = {token: index for index, token in enumerate([*specials, *dict.fromkeys(LYRIC_CHARACTERS)])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens([*specials, *MARKS])
    path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    return tokenizer.get_vocab_size(with_added_tokens=True)
