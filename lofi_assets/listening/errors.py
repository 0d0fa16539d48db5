"""The one error of this package."""

from lofi_assets.errors import LofiError


class ListeningError(LofiError, ValueError):
    """A listening test cannot be made, read or judged honestly; the message names the file and what to do next."""
