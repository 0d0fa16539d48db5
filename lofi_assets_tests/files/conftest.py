"""How files are written is tested as it is, with its wait for the disk."""

import pytest


@pytest.fixture(autouse=True)
def nothing_waits_for_the_disk() -> None:
    pass
