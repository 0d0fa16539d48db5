"""ACE-Step v1, a backbone: transformer, lyric encoder, music DCAE, vocoder, flow matching, sampler, loading.

The model's own arithmetic, with upstream's tensor names. `backbone.py` puts it behind the Protocol `Backbone`.
"""
