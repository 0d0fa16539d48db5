"""A runtime written from a bundle's BUNDLE.md and pipeline.json alone: BUNDLE TIER PROMPT SECONDS SEED LATENTS.npy."""

import json
import math
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

bundle, tier, prompt, seconds, seed, output = sys.argv[1:]
P = json.loads(Path(bundle, "pipeline.json").read_text(encoding="utf-8"))
options = onnxruntime.SessionOptions()
for entry in P["session_config"].items():
    options.add_session_config_entry(*entry)
files = {name: f"{bundle}/{tier}/{about['file']}" for name, about in P["graphs"].items()}
graphs = {name: onnxruntime.InferenceSession(file, options) for name, file in files.items()}
steps, scale = P["defaults"]["steps"], P["defaults"]["guidance_scale"]
norm = partial(np.linalg.norm, axis=(-2, -1), keepdims=True)

tokenizer = Tokenizer.from_file(f"{bundle}/{tier}/{P['text']['tokenizer']}")
tokenizer.enable_truncation(P["text"]["max_tokens"])
ids = np.array([tokenizer.encode(prompt).ids])
text_mask = np.ones_like(ids)
(states,) = graphs["text_encoder"].run(None, {"input_ids": ids, "attention_mask": text_mask})
lyrics = np.array([P["lyrics"]["ids_without_lyrics"]])
speaker = np.zeros((1, P["graphs"]["condition_encoder"]["inputs"]["speaker_embeds"]["shape"][1]), np.float32)
conditions = {"text_hidden_states": states, "text_attention_mask": text_mask, "speaker_embeds": speaker}
conditions |= {"lyric_token_ids": lyrics, "lyric_mask": np.ones_like(lyrics)}
null = conditions | {name: np.zeros_like(conditions[name]) for name in P["null_condition"]["zeros"]}
context, context_mask = graphs["condition_encoder"].run(None, conditions)
without, without_mask = graphs["condition_encoder"].run(None, null)

frames = math.ceil(float(seconds) * 44100 / 4096)
words = np.random.RandomState(int(seed) % 2**32).randint(0, 2**32, 128 * frames, dtype=np.uint32)
u = (words & 0xFFFFFF).reshape(-1, 2, 8) / 2**24
r, a = np.sqrt(-2 * np.log(1 - u[:, 0])), 2 * np.pi * u[:, 1]
sample = np.stack([r * np.cos(a), r * np.sin(a)], axis=1).astype(np.float32).reshape(1, 8, 16, frames)

shift, interval = P["schedule"]["shift"], P["guidance"]["interval"]
low = P["schedule"]["lowest"]
x = np.linspace(1, shift * low / (1 + (shift - 1) * low), steps)
sigmas = np.append(shift * x / (1 + (shift - 1) * x), 0).astype(np.float32)
w, kept = np.float32(0.9 + 0.2 / (1 + math.exp(-0.1 * P["euler"]["omega"]))), 0
for i in range(steps):
    asked = {"hidden_states": sample, "timestep": 1000 * sigmas[i : i + 1]}
    given = {"encoder_hidden_states": context, "encoder_hidden_mask": context_mask}
    (v,) = graphs["transformer"].run(None, asked | given)
    if scale > 1 and int(steps * (1 - interval) / 2) <= i < int(steps * (interval / 2 + 0.5)):
        given = {"encoder_hidden_states": without, "encoder_hidden_mask": without_mask}
        (unguided,) = graphs["transformer"].run(None, asked | given)
        kept = v - unguided + np.float32(P["guidance"]["momentum"]) * kept
        e = (kept * np.minimum(1, P["guidance"]["norm_threshold"] / norm(kept))).astype(np.float64)
        p = v.astype(np.float64) / norm(v.astype(np.float64))
        v = v + np.float32(scale - 1) * (e - (e * p).sum(axis=(-2, -1), keepdims=True) * p).astype(np.float32)
    c = (sigmas[i + 1] - sigmas[i]) * v
    sample = sample + (c - c.mean()) * w + c.mean()
np.save(output, sample[0])
