"""The trainer: what runs in the process of a training run, from batches to weights."""
