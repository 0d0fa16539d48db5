"""Fixtures that several test files share; what only one file needs is made in that file."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY.parent / "shared" / "reference"


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Tensors computed by the public ACE-Step code and MusiCNN golden outputs; kept outside the project."""
    if not REFERENCE.is_dir():
        pytest.skip(f"reference tensors absent: {REFERENCE} (comparisons against upstream are NOT run here)")
    return REFERENCE
