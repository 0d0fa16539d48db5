"""A small CLAP that several files of tests load."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def clap_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLAP of the real classes, with a byte-level tokenizer, saved as a user would have it."""
    import torch
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizerFast

    torch.manual_seed(0)
    letters = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])}
    byte_letters = [chr(b) for b in range(33, 127)] + [chr(256 + i) for i in range(33)]
    letters.update({letter: len(letters) + i for i, letter in enumerate(byte_letters)})
    config = ClapConfig(
        text_config={
            "vocab_size": 300,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 90,
        },
        audio_config={
            "patch_embeds_hidden_size": 8,
            "depths": [1, 1],
            "num_attention_heads": [1, 2],
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "enable_fusion": False,
        },
        projection_dim=24,
    )
    directory = tmp_path_factory.mktemp("clap")
    ClapModel(config).save_pretrained(directory)
    RobertaTokenizerFast(vocab=letters, merges=[]).save_pretrained(directory)
    ClapFeatureExtractor().save_pretrained(directory)
    return directory
