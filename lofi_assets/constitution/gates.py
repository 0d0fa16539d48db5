"""The constitution's gates as data (`config/constitution.yaml`), and how a number is judged.

What belongs here: `Gate`, `Verdict`, loading, `judge()`. Pure: no Dagster, no audio. What does not: what an asset
measured (`verdicts.py`), where a check runs (`defs/gates.py`).
"""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lofi_assets.errors import LofiError
from lofi_assets.files.hand_written import HandWrittenError, decoded, parse_yaml
from lofi_assets.store import CONFIG_DIR, require_config
from lofi_assets.wording import counted

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Scope = Literal["track", "asset", "repository"]
Op = Literal["<", "<=", ">", ">=", "==", "!="]
Status = Literal["pass", "fail", "inconclusive"]
Limit = bool | int | float | str


GUARDED_ASSETS = ("merged_model", "quantized_tiers", "hub_release")
"""Assets that refuse to run unless the gates that hold them have passed (design.md section 4, layer 3)."""


ENCODED_MEASURES = frozenset({"fad", "fad_over_floor", "clap_alignment", "fad_increase_int8", "fad_increase_int4"})
"""Measures that an encoder of audio takes: without the word that it proved itself trained they are inconclusive."""

NOT_MEASURED = "not measured"
CUT_LONG_FILES = "with `audio.segment: true` the profile has longer files cut into tracks of 60 to 120 s"


class ConstitutionError(LofiError, ValueError):
    """`config/constitution.yaml` breaks its own rules; the message names the gate and the key."""


@dataclass(frozen=True)
class Gate:
    """One row of the table; the keys are explained at the top of `config/constitution.yaml`."""

    id: str
    article: str
    scope: Scope
    measure: str
    op: Op
    limit: Limit
    why: str
    asset: str | None = None
    encoder: str | None = None
    blocking: bool = False
    holds: tuple[str, ...] = ()
    signed: bool = False
    severity: Literal["ERROR", "WARN"] = "ERROR"

    @property
    def check_name(self) -> str:
        """Name of its asset check: Dagster allows no dots."""
        return self.id.replace(".", "_")

    @property
    def rule(self) -> str:
        """`measure op limit`, and the encoder it is bound to."""
        bound = f" ({self.encoder})" if self.encoder else ""
        return f"{self.measure}{bound} {self.op} {self.limit}"


@dataclass(frozen=True)
class Verdict:
    """What a gate says of one value."""

    gate: Gate
    status: Status
    value: Any
    note: str = ""
    counted: bool = False
    """`value` is the number of accepted tracks that break the gate, rather than its measure."""

    @property
    def passed(self) -> bool:
        """Inconclusive is not passed."""
        return self.status == "pass"

    @property
    def text(self) -> str:
        """For people: the value against the limit, and what makes it inconclusive."""
        gate, asked = self.gate, f"must be {_demand(self.gate)}"
        if self.counted:
            broken = counted(self.value, "accepted track breaks", "accepted tracks break")
            return f"{broken} {gate.rule} ({self.note})"
        if self.value is None:
            because = f" ({self.note})" if self.note not in ("", NOT_MEASURED) else ""
            return f"{gate.measure}: {NOT_MEASURED}, {asked}{because}"
        said = f"{gate.measure} = {shown(self.value, gate)}, {asked}" + (f" ({self.note})" if self.note else "")
        return f"{said}; {CUT_LONG_FILES}" if self.status == "fail" and _bounds_duration(gate) else said


def _demand(gate: Gate) -> str:
    """What the value must be; a yes or no needs no operator."""
    if isinstance(gate.limit, bool) and gate.op == "==":
        return _word(gate.limit)
    return f"{gate.op} {gate.limit}"


def _word(value: bool) -> str:
    return "yes" if value else "no"


def shown(value: Any, gate: Gate) -> str:
    """A value with as many digits as the verdict needs: what is shown never reads as the other side of the limit."""
    if isinstance(value, bool):
        return _word(value)
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value) or _kind(gate.limit) != "number":
        return f"{value:.4g}"
    roundings = (f"{value:.{digits}g}" for digits in range(4, 17))
    same_side = (text for text in roundings if _side(float(text), gate.limit) == _side(value, gate.limit))
    return next(same_side, repr(value))


def _side(value: float, limit: Any) -> int:
    """-1 below the limit, 0 at it, 1 above."""
    side: int = (value > limit) - (value < limit)
    return side


@cache
def load_gates(config_dir: Path = CONFIG_DIR) -> tuple[Gate, ...]:
    """Every gate, in the order of the table.

    Raises:
        ConstitutionError: an unknown key, op, scope or guarded asset, or two gates with one id.
    """
    rows = load_constitution(config_dir)["gates"]
    gates = tuple(_gate(row) for row in rows)
    ids = [gate.id for gate in gates]
    twice = sorted({gate_id for gate_id in ids if ids.count(gate_id) > 1})
    if twice:
        raise ConstitutionError(f"{config_dir / 'constitution.yaml'}: gate ids used twice: {', '.join(twice)}")
    return gates


def load_constitution(config_dir: Path = CONFIG_DIR) -> dict[str, Any]:
    """The whole file: `version`, `gates` (rows), `training_table`."""
    require_config(config_dir)
    path = config_dir / "constitution.yaml"
    try:
        parsed = _parsed(decoded(path.read_bytes(), where=str(path)), where=str(path))
        data: Any = deepcopy(parsed) or {}
    except OSError as error:
        raise ConstitutionError(f"{path}: cannot be read ({error})") from error
    except HandWrittenError as error:
        raise ConstitutionError(str(error)) from error
    if not isinstance(data, dict):
        raise ConstitutionError(f"{path}: holds no mapping")
    missing = {"version", "gates", "training_table"} - set(data)
    if missing:
        raise ConstitutionError(f"{path}: lacks {', '.join(sorted(missing))}")
    if not isinstance(data["gates"], list):
        raise ConstitutionError(f"{path}: gates are a list of rows")
    return data


@lru_cache(maxsize=4)
def _parsed(text: str, *, where: str) -> dict[str, Any]:
    """Read anew whenever the file is another: the release guard asks it again and again."""
    return parse_yaml(text, where=where) or {}


def _gate(row: Mapping[str, Any]) -> Gate:
    if not isinstance(row, Mapping):
        raise ConstitutionError(f"gate {row!r}: must be a mapping of keys")
    try:
        gate = Gate(**{**row, "holds": tuple(row.get("holds", ()))})
    except TypeError as error:
        raise ConstitutionError(f"gate {row.get('id', row)}: {error}") from error
    for key, value, allowed in (
        ("op", gate.op, ("<", "<=", ">", ">=", "==", "!=")),
        ("scope", gate.scope, ("track", "asset", "repository")),
        ("severity", gate.severity, ("ERROR", "WARN")),
    ):
        if value not in allowed:
            raise ConstitutionError(f"gate {gate.id}: {key} is {value!r}, must be one of {', '.join(allowed)}")
    if gate.scope != "asset" and gate.holds:
        raise ConstitutionError(f"gate {gate.id}: scope {gate.scope} cannot hold an asset back; only asset gates do")
    gate = _typed(gate)
    unknown = set(gate.holds) - set(GUARDED_ASSETS)
    if unknown:
        raise ConstitutionError(f"gate {gate.id}: holds {', '.join(sorted(unknown))}, which has no guard")
    if (gate.scope == "repository") != (gate.asset is None):
        raise ConstitutionError(f"gate {gate.id}: scope {gate.scope} and asset {gate.asset} do not go together")
    return gate


def _typed(gate: Gate) -> Gate:
    """A gate whose every field has its type.

    Raises:
        ConstitutionError: one has another.
    """
    from pydantic import ValidationError

    try:
        return _adapter().validate_python(vars(gate))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ConstitutionError(f"gate {gate.id}: {faults}") from error


@cache
def _adapter() -> "TypeAdapter[Gate]":
    from pydantic import TypeAdapter

    return TypeAdapter(Gate)


def gates_of(gates: Sequence[Gate], *, asset: str, scope: Scope) -> tuple[Gate, ...]:
    """The gates of one asset in one scope."""
    return tuple(gate for gate in gates if gate.asset == asset and gate.scope == scope)


def judge(gate: Gate, measured: Any) -> Verdict:
    """Judge one measure.

    Args:
        measured: the value itself, or a mapping with `value` and any of `encoder`, `trained`, `of`, `note`. `of` says
            what was measured, such as how many clips; it is published, where notes, which may name tracks, are not.
    Returns:
        `inconclusive` for a missing or non-finite number, a negative one where the gate is not `signed`, an encoder
        that is not `trained is True` (absent, None, 0, 1 and words are not), or another encoder than the gate's; else
        `pass` or `fail`. That an encoder takes part is said by the gate, by `ENCODED_MEASURES` or by `measured` itself.
    """
    details: Mapping[str, Any] = measured if isinstance(measured, Mapping) else {"value": measured}
    value = details.get("value")
    doubt = _doubt(gate, value, details)
    if doubt:
        return Verdict(gate, "inconclusive", value, doubt)
    note = "; ".join(str(details[key]) for key in ("of", "note") if details.get(key))
    return Verdict(gate, "pass" if _holds(value, gate.op, gate.limit) else "fail", value, note)


def _doubt(gate: Gate, value: Any, details: Mapping[str, Any]) -> str:
    if value is None:
        return str(details.get("note") or NOT_MEASURED)
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    if _kind(value) != _kind(gate.limit):
        return f"{type(value).__name__} where {type(gate.limit).__name__} is asked"
    if _kind(value) == "number" and value < 0 and not gate.signed:
        return "negative"
    if gate.encoder and details.get("encoder") != gate.encoder:
        used = details.get("encoder") or "an unnamed encoder"
        return f"measured with {used}, the limit is on the scale of {gate.encoder}"
    encoded = gate.encoder or gate.measure in ENCODED_MEASURES or "encoder" in details or "trained" in details
    if encoded and details.get("trained") is not True:
        return "the encoder is untrained" if details.get("trained") is False else "the encoder is not proven trained"
    return ""


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _holds(value: Any, op: Op, limit: Limit) -> bool:
    match op:
        case "<":
            return bool(value < limit)
        case "<=":
            return bool(value <= limit)
        case ">":
            return bool(value > limit)
        case ">=":
            return bool(value >= limit)
        case "==":
            return bool(value == limit)
        case "!=":
            return bool(value != limit)


def judge_track(gates: Sequence[Gate], measures: Mapping[str, Any]) -> Verdict | None:
    """The first gate that does not pass, of those whose measure is known so far; None if all pass.

    Cheap measures come first and dear ones later, so a track is judged as its measures arrive.
    """
    for gate in gates:
        if gate.measure in measures and not (verdict := judge(gate, measures[gate.measure])).passed:
            return verdict
    return None


def too_long(seconds: float, gates: Sequence[Gate]) -> bool:
    """Whether audio of this duration misses an upper gate on `duration_s`: the one fault that cutting mends."""
    limits = [gate.limit for gate in gates if _bounds_duration(gate)]
    return any(not isinstance(limit, str) and seconds > limit for limit in limits)


def _bounds_duration(gate: Gate) -> bool:
    return gate.measure == "duration_s" and gate.op in ("<", "<=")


def judge_asset(gates: Sequence[Gate], measures: Mapping[str, Any]) -> list[Verdict]:
    """Verdicts of an asset's gates over its recorded measures; an absent measure is inconclusive, never skipped."""
    return [judge(gate, measures.get(gate.measure)) for gate in gates]


def gates_page(config_dir: Path = CONFIG_DIR) -> str:
    """`docs/gates.md`: the whole table for people, generated."""
    lines = [
        "# Gates",
        "",
        f"Generated by `lofi docs` from `config/constitution.yaml`, version {load_constitution(config_dir)['version']};"
        " do not edit.",
        "A verdict is pass, fail or inconclusive; only pass opens anything.",
        "",
        "| gate | asset | rule | scope | in the run | holds back | why |",
        "|---|---|---|---|---|---|---|",
    ]
    for gate in load_gates(config_dir):
        effect = "stops what follows" if gate.blocking else ("quarantine" if gate.scope == "track" else gate.severity)
        lines.append(
            f"| `{gate.id}` | {gate.asset or 'repository'} | `{gate.rule}` | {gate.scope} | {effect} "
            f"| {', '.join(gate.holds) or '-'} | {gate.why} ({gate.article}) |"
        )
    return "\n".join(lines) + "\n"
