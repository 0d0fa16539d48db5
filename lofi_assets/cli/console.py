"""Where tables are printed: wide where no terminal says how wide it is."""

import sys

from rich.console import Console

console = Console(width=160 if not sys.stdout.isatty() else None)
