"""Places in the world that a user describes in a TOML file, in the words of `Profile` and `NatBehaviour`.

[office]
summary = "The box in the office"
ipv6 = "firewalled"

[[office.nats]]
mapping = "endpoint-independent"
filtering = "address-dependent"
allocation = { kind = "sequential", step = 2 }
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from crowline.base.errors import LocalProblem, UsageError
from crowline.lab.behaviour import Allocation, Lifetimes, NatBehaviour
from crowline.lab.presets import PRESETS
from crowline.lab.profile import Profile

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_HINT = "docs/lab.md says how a place is described."

# Tables inside of a translator's table.
_PARTS: Mapping[str, type] = {"allocation": Allocation, "lifetimes": Lifetimes}


def known_places(path: Path | None = None) -> dict[str, Profile]:
    """The presets, and the places of a file where one is given. Raises like `load_places`."""
    return {**PRESETS, **(load_places(path) if path is not None else {})}


def load_places(path: Path) -> dict[str, Profile]:
    """Every place of the file by its name. Raises `LocalProblem`, or `UsageError` that says what is wrong."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LocalProblem(f"{path.name} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} is not TOML: {error}.") from error
    return {name: _place(name, table) for name, table in tables.items()}


def _place(name: str, table: Any) -> Profile:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a place.", hint="Small letters, digits and dashes make one."
        )
    if name in PRESETS:
        raise UsageError(f"{name} is a preset already.", hint="Give your place another name.")
    try:
        _refuse_unknown(table)
        return msgspec.convert({**table, "name": name}, Profile)
    except (UsageError, msgspec.ValidationError, TypeError) as error:
        raise UsageError(f"The place {name}: {error}.", hint=_HINT) from error


def _refuse_unknown(table: Any) -> None:
    """A word that nothing reads is a typo, not a wish to be ignored."""
    _check_words(table, Profile)
    for nat in table.get("nats", ()):
        _check_words(nat, NatBehaviour)
        for name, kind in _PARTS.items():
            if name in nat:
                _check_words(nat[name], kind)


def _check_words(table: Any, kind: type[Any]) -> None:
    if not isinstance(table, dict):
        raise UsageError(f"{table!r} is not a table")
    known = [field.name for field in fields(kind) if (kind, field.name) != (Profile, "name")]
    for word in table:
        if word not in known:
            raise UsageError(f"{word!r} means nothing there; known are {', '.join(known)}")
