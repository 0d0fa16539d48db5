"""The small CLAP of the metrics' tests."""

from lofi_assets_tests.metrics.conftest import clap_directory

__all__ = ["clap_directory"]
