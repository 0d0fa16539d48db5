"""Reading the files of `config/styles/`: strict YAML, and errors that name the file, the key and what to do.

What belongs here: how a file is read. What does not: what it means (`styles.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lofi_assets.errors import LofiError


class StyleError(LofiError, ValueError):
    """The style configuration breaks a rule; the message names the file, the key and what to do."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """Plain YAML data; a key that stands twice is an error, where PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                problem = f"the key {key_node.value!r} stands twice; keep one"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except OSError as error:
        raise StyleError(f"{path}: cannot be read ({error.strerror}); restore it from the repository") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StyleError(f"{path}: not YAML: {' '.join(str(error).split())}; mend that line") from error


@contextmanager
def expected_shape(path: Path, key: str, expected: str) -> Iterator[None]:
    """Turn what goes wrong on data of another shape into a StyleError that says which shape is expected."""
    try:
        yield
    except StyleError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise StyleError(f"{path}: {key}: {expected} ({type(error).__name__}: {error})") from error
