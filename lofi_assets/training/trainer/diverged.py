"""The error of a run that no longer learns."""

from lofi_assets.errors import LofiError


class TrainingDiverged(LofiError, RuntimeError):
    """The loss is no longer a number, or far above what it was; the message is the diagnosis."""
