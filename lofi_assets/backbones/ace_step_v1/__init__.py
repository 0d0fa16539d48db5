"""ACE-Step v1, the backbone: transformer, lyric encoder, music DCAE, vocoder, flow matching, sampler, loading.

Here: the model's own arithmetic, with upstream's tensor names.
Not here: training loops, metrics, ONNX, Dagster, profiles.
"""
