"""The runtime that a release carries: text to music with onnxruntime, numpy and tokenizers alone."""
