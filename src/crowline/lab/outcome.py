"""What became of one attempt to connect two hosts of the laboratory: the same words in every world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from crowline.base.errors import MalformedMessage

Kind: TypeAlias = Literal["direct", "lan", "relay", "hub", "failed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DIRECT_KINDS: frozenset[Kind] = frozenset({"direct", "lan"})  # no server carries the bytes

MAX_TEXT = 500  # characters of a technique or reason that are kept: a foreign program writes them
MAX_MILLISECONDS = 86_400_000.0  # a day: no attempt takes longer, and a larger number is a mistake


class MalformedOutcome(MalformedMessage):
    """The object does not describe an outcome."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, with times in milliseconds from the moment both sides were there.

    `setup_ms`: until the first byte could be sent, on whatever path; `direct_ms`: until the first direct link
    was in use; None where it never happened or was not measured. `technique` names what made the final path
    ("host", "srflx", "prflx", "ipv6", "mapped", "relay", "hub", …; "" where nothing did). `reason` is a
    sentence or part of one: why the path was chosen, or why the attempt failed.
    """

    kind: Kind
    setup_ms: float | None = None
    direct_ms: float | None = None
    technique: str = ""
    reason: str = ""

    @property
    def is_direct(self) -> bool:
        return self.kind in DIRECT_KINDS

    @property
    def is_connected(self) -> bool:
        return self.kind != "failed"

    def to_fields(self) -> dict[str, Any]:
        """Plain values for JSON; `from_fields` reads them back."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: object) -> Outcome:
        """Read what `to_fields` or a foreign program wrote; only `kind` is required.

        Unknown fields are ignored. Raises `MalformedOutcome` on a value of the wrong type or a time below 0
        or above a day.
        """
        if not isinstance(fields, Mapping):
            raise MalformedOutcome("an outcome is a JSON object")
        kind = fields.get("kind")
        if kind not in KINDS:
            raise MalformedOutcome(f"kind is one of {', '.join(KINDS)}")
        return cls(
            kind,
            _milliseconds(fields, "setup_ms"),
            _milliseconds(fields, "direct_ms"),
            _text(fields, "technique"),
            _text(fields, "reason"),
        )


def _milliseconds(fields: Mapping[Any, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedOutcome(f"{name} is a number of milliseconds")
    if not 0 <= value <= MAX_MILLISECONDS:
        raise MalformedOutcome(f"{name} is out of range")
    return float(value)


def _text(fields: Mapping[Any, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedOutcome(f"{name} is a text")
    # On one line, and nothing that could move a terminal's cursor or fail to be written to a file.
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value[:MAX_TEXT])
