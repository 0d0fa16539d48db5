"""Files that people write by hand: UTF-8 text, JSON and YAML, read so that nothing is guessed and nothing chosen.

Refused, with the place: bytes that are no UTF-8, a key that stands twice, a number that is none. A byte order mark at
the start is dropped: editors write it.
"""

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from lofi_assets.errors import LofiError

DIGITS = 400
"""Longest number that is read; a longer one is no float, and Python may refuse to read it at all."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class HandWrittenError(LofiError, ValueError):
    """Text that cannot be read as it stands; the message names the file, the line and what to do."""


class _RefusedError(LofiError):
    """Something that strict JSON does not hold; where it stands is looked for afterwards."""


@dataclass(frozen=True)
class Member:
    """`"key": value` of an object, and where it stands in the text."""

    key: str
    value: Any
    start: int
    end: int
    fault: str
    """Line and fault of the value; empty if it can be read as it stands."""


@dataclass(frozen=True)
class Element:
    """One element of a JSON array, and where it stands in the text."""

    value: Any
    """As a reader takes it that keeps the last of two keys; not to be believed where there is a fault."""
    start: int
    end: int
    fault: str
    """Line and fault; empty for an element that can be read as it stands."""


def decoded(data: bytes, *, where: str) -> str:
    """UTF-8 text without its byte order mark.

    Raises:
        HandWrittenError: bytes that are no UTF-8, with the first of them and its line.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise HandWrittenError(f"{where}: saved as UTF-16; save it again with the encoding UTF-8")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise HandWrittenError(
            f"{where}: line {line} holds the byte 0x{data[error.start]:02x}, which is not UTF-8; "
            "save it again with the encoding UTF-8"
        ) from error


def parse_json(text: str, *, where: str) -> Any:
    """JSON data in which no key stands twice in one object, every number is finite and every string is text.

    Raises:
        HandWrittenError: naming the line, and the key in question.
    """
    with _syntax_errors(where):
        try:
            value = _STRICT.decode(text)
        except _RefusedError as error:
            raise HandWrittenError(f"{where}: {_located(text, 0, len(text))}") from error
    if fault := _located(text, 0, len(text)) if _SURROGATE.search(text) else "":
        raise HandWrittenError(f"{where}: {fault}")
    return value


def json_elements(text: str, *, where: str) -> tuple[Element, ...]:
    """The elements of a JSON array; one that cannot be read as it stands does not hide the others.

    Raises:
        HandWrittenError: the text is no JSON, or no array.
    """
    with _syntax_errors(where):
        if not isinstance(_LENIENT.decode(text), list):
            raise HandWrittenError(f"{where}: must be an array: [ ... ]")
    elements = []
    position = _skip(text, text.index("[") + 1)
    while text[position] != "]":
        value, end = _LENIENT.raw_decode(text, position)
        elements.append(Element(value, position, end, fault_in(text, position, end)))
        position = _skip(text, end, ",")
    return tuple(elements)


def fault_in(text: str, start: int, end: int) -> str:
    """Line and fault of what strict JSON does not hold in the value between two positions; empty if it is sound."""
    part = text[start:end]
    try:
        _STRICT.decode(part)
    except _RefusedError:
        return _located(text, start, end)
    return _located(text, start, end) if _SURROGATE.search(part) else ""


def members(text: str, start: int) -> Iterator[Member]:
    """The members of the JSON object that starts there, each also where a key stands twice."""
    position = _skip(text, start + 1)
    while text[position] != "}":
        key, end = _LENIENT.raw_decode(text, position)
        value_start = _skip(text, end, ":")
        value, end = _LENIENT.raw_decode(text, value_start)
        yield Member(key, value, position, end, fault_in(text, value_start, end))
        position = _skip(text, end, ",")


def parse_yaml(text: str, *, where: str) -> Any:
    """Plain YAML data in which no key stands twice in one mapping, where PyYAML would silently keep the last.

    Aliases of aliases are not read: ten lines of them hold more than a machine can, and one can hold itself.

    Raises:
        HandWrittenError: naming the line.
    """
    try:
        _refuse_what_grows(text)
        return yaml.load(text, Loader=_PlainLoader)
    except RecursionError as error:
        raise HandWrittenError(f"{where}: not YAML that can be read: nested too deep") from error
    except yaml.YAMLError as error:
        raise HandWrittenError(f"{where}: not YAML: {' '.join(str(error).split())}; mend that line") from error


_Libyaml: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast where PyYAML was built with libyaml, as its wheels are. It composes nodes recursively in C, so that
depth is looked at before."""
_DEEPEST = 100


def _refuse_what_grows(text: str) -> None:
    """Raise RecursionError for collections nested too deep, ComposerError for an alias inside of what has an anchor."""
    anchored: list[bool] = []
    for event in yaml.parse(text, Loader=_Libyaml):
        if isinstance(event, yaml.AliasEvent) and any(anchored):
            line = event.start_mark.line + 1 if event.start_mark else 1
            problem = f"line {line}: *{event.anchor} stands inside of what has an anchor itself; write it out"
            raise yaml.composer.ComposerError(None, None, problem, None)
        if isinstance(event, yaml.CollectionStartEvent):
            anchored.append(bool(event.anchor))
            if len(anchored) > _DEEPEST:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            anchored.pop()


class _PlainLoader(_Libyaml):  # type: ignore[misc]
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError) as error:  # PyYAML's own, of a date or number that there is not
            problem = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}; put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                problem = f"the key {key!r} stands twice; keep one"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


@contextmanager
def _syntax_errors(where: str) -> Iterator[None]:
    try:
        yield
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise HandWrittenError(f"{where}: {place}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise HandWrittenError(f"{where}: not JSON that can be read: nested too deep") from error


def _skip(text: str, position: int, also: str = "") -> int:
    while text[position] in " \t\r\n" + also:
        position += 1
    return position


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RefusedError
    return found


def _refuse(_: str) -> Any:
    raise _RefusedError


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _strict_int(text: str) -> int:
    return int(text) if len(text) <= DIGITS else _refuse(text)


def _int_or_inf(text: str) -> int | float:
    return int(text) if len(text) <= DIGITS else math.inf


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite, parse_int=_strict_int
)
_LENIENT = json.JSONDecoder(parse_int=_int_or_inf)


def _located(text: str, start: int, end: int) -> str:
    """Line and fault of the first thing between two positions that strict JSON does not hold; empty if there is none.

    The text is known to be JSON otherwise.
    """
    keys: list[dict[str, int] | None] = []  # of every object around a token, with their lines; None for an array
    key, at_key = "", False
    line, counted = text.count("\n", 0, start) + 1, start
    for token in _TOKEN.finditer(text, start, end):
        word, line, counted = token[0], line + text.count("\n", counted, token.start()), token.start()
        if word in "{[":
            keys.append({} if word == "{" else None)
        elif word in "}]":
            keys.pop()
        elif word[0] == '"':
            name = json.loads(word)
            if not _is_text(name):
                return f"line {line}: {word[:40]} holds half of a character; write the character itself"
            if at_key and (known := keys[-1]) is not None:
                if name in known:
                    return f"line {line}: the key {name!r} stands twice (first on line {known[name]}); keep one"
                known[name], key = line, name
        elif word not in ",:" and not _is_number(word):
            return f"line {line}: {key or 'a value'} is {word[:20]}, which is no number; write one or leave it out"
        at_key = word in "{," and bool(keys) and keys[-1] is not None
    return ""


def _is_text(string: str) -> bool:
    try:
        string.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(word: str) -> bool:
    """Whether a word of JSON is a number that can be read, or no number at all."""
    if word in ("true", "false", "null"):
        return True
    return len(word) <= DIGITS and math.isfinite(float(word))
