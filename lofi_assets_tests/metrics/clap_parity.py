"""Our CLAP against the package `laion-clap`, in an environment of its own: `make clap-parity`.

Without arguments both hold the same random weights, of HTSAT-base and a RoBERTa that reads bytes. With the published
checkpoint and roberta-base's tokenizer, both of which have to be at hand, they hold the trained ones:

    .venv-clap/bin/python -m lofi_assets_tests.metrics.clap_parity music_audioset_epoch_15_esc_90.14.pt ROBERTA_FOLDER

laion-clap asks the hub for three tokenizers and a text model while it is imported and built; it is given local ones.
Exits 1 where a vector of unit length differs by more than the tolerance in any component.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from lofi_assets.metrics.clap import SAMPLE_RATE, ClapEmbedder, unit_rows
from lofi_assets.metrics.clap_conversion import convert_clap, load_tokenizer
from lofi_assets.metrics.probes import PROBES

TOLERANCE = 1e-4
TEXTS = ("slow lofi piano, vinyl crackle, 72 BPM", "loud techno with distorted drums", "rain on a window", "jazz")
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
"""A RoBERTa of base's width and depth, with a vocabulary of bytes."""


def byte_tokenizer(folder: Path) -> Path:
    """RoBERTa's kind of tokenizer without a merge: a token a byte."""
    from transformers import RobertaTokenizerFast

    letters = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])}
    signs = [chr(byte) for byte in range(33, 127)] + [chr(256 + index) for index in range(33)]
    letters.update({sign: len(letters) + index for index, sign in enumerate(signs)})
    RobertaTokenizerFast(vocab=letters, merges=[]).save_pretrained(folder)
    return folder


def theirs(tokenizer: Any, *, words: int) -> Any:
    """`laion_clap.CLAP_Module` of HTSAT-base with random weights, and batch norms that are not the identity."""
    import torch
    import transformers

    sizes = SIZES | {"vocab_size": words}
    local = transformers.RobertaModel(transformers.RobertaConfig(**sizes))
    tokenizers = ("BertTokenizer", "RobertaTokenizer", "BartTokenizer")
    patches = [mock.patch(f"transformers.{name}.from_pretrained", return_value=tokenizer) for name in tokenizers]
    patches.append(mock.patch("transformers.RobertaModel.from_pretrained", return_value=local))
    for patch in patches:
        patch.start()
    torch.manual_seed(0)
    import laion_clap

    module = laion_clap.CLAP_Module(enable_fusion=False, amodel="HTSAT-base", device="cpu")
    for patch in patches:
        patch.stop()
    with torch.no_grad():
        module.model.audio_branch.bn0.running_mean.normal_(-30.0, 5.0)
        module.model.audio_branch.bn0.running_var.uniform_(100.0, 300.0)
    return module.eval()


def checkpoint_of(module: Any, path: Path) -> Path:
    """As laion-clap's training writes one: names with a prefix, and a buffer that newer versions no longer have."""
    import torch

    state = {f"module.{name}": tensor for name, tensor in module.model.state_dict().items()}
    state["module.text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    torch.save({"epoch": 1, "name": "random", "score": np.float64(0.5), "state_dict": state}, path)
    return path


def load_published(module: Any, checkpoint: Path) -> None:
    """The published weights into laion-clap's own model, by our reader of tensors alone."""
    from lofi_assets.metrics.clap_conversion import read_state

    own = module.model.state_dict()
    state = {name.removeprefix("module."): tensor for name, tensor in read_state(checkpoint).items()}
    module.model.load_state_dict({name: state[name] for name in own})


def main(arguments: list[str]) -> int:
    """Print the largest differences; 1 past the tolerance."""
    import torch

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        words = Path(arguments[1]) if arguments else byte_tokenizer(folder / "tokenizer")
        tokenizer = load_tokenizer(words)
        module = theirs(tokenizer, words=50_265 if arguments else SIZES["vocab_size"])
        if arguments:
            load_published(module, Path(arguments[0]))
        source = Path(arguments[0]) if arguments else checkpoint_of(module, folder / "random.pt")
        convert_clap(source, folder / "clap", tokenizer=words)
        ours = ClapEmbedder.load(folder / "clap", lufs=None)
        clips = [clip(10.0, SAMPLE_RATE) for clip in PROBES.values()]
        with torch.inference_mode():
            heard = module.get_audio_embedding_from_data([torch.from_numpy(clip) for clip in clips], use_tensor=True)
            read = module.get_text_embedding(list(TEXTS), tokenizer=_padded(tokenizer))
        audio = np.abs(unit_rows(np.concatenate([ours.embed(clip) for clip in clips])) - heard.numpy()).max()
        text = np.abs(ours.embed_text(TEXTS) - read).max()
        print(f"largest difference of a component, vectors of unit length: audio {audio:.2g}, text {text:.2g}")
        print(f"proof: {ours.proof.text} -> {'trained' if ours.trained else 'untrained'}")
    return int(not max(audio, text) <= TOLERANCE)


def _padded(tokenizer: Any) -> Any:
    def padded(texts: list[str]) -> Any:
        return tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")

    return padded


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
