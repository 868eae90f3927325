"""The settings that are about TURN: who may use it, and how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from crowline.base.errors import UsageError
from crowline.base.secrets import Secret
from crowline.server.config import ServerConfig, parse_size
from crowline.server.descriptors import default_limits
from crowline.stun.budget import BINDING, Allowance
from crowline.turn.auth import DEFAULT_REALM
from crowline.turn.quota import Limits

HUB_PREFIX = "meeting-"
"""What the names of users start with that the hub issues, and those of no others."""

MIN_SECRET = 16
"""Characters: whoever sees one exchange can try secrets as fast as a computer goes, RFC 8656 §21.1.2."""

MAX_REALM = len(DEFAULT_REALM)
"""Bytes; with a longer one the answer to the smallest request would be more than three times its size."""


class TurnSettings(Protocol):
    """The part of `Settings` that is read here."""

    users: dict[str, str]
    auth_secret: str | None
    realm: str | None
    allocations: int | None
    allocations_per_user: int | None
    allocations_per_source: int | None
    bytes_per_second: str | int | None
    binding_rate: int | None


def turn_settings(settings: TurnSettings) -> dict[str, Any]:
    """Fields of `ServerConfig`. Raises `UsageError`."""
    standard = ServerConfig()
    return {
        "users": {_user(name): _password(name, text) for name, text in settings.users.items()},
        "auth_secret": None if settings.auth_secret is None else _auth_secret(settings.auth_secret),
        "realm": standard.realm if settings.realm is None else _realm(settings.realm),
        "turn_limits": _limits(settings),
        "binding": _binding(settings.binding_rate),
    }


def short_passwords(users: Mapping[str, Secret]) -> list[str]:
    """The users whose passwords are short enough to be found by trying, in order."""
    return sorted(name for name, password in users.items() if len(password.reveal().decode()) < MIN_SECRET)


def _user(name: str) -> str:
    if not name or ":" in name or name.startswith(HUB_PREFIX) or len(name.encode()) > 128:
        raise UsageError(
            f"users: {name!r} cannot be a user name.",
            hint=f"It has 1 to 128 bytes, no colon, and does not start with {HUB_PREFIX}.",
        )
    return name


def _password(name: str, text: str) -> Secret:
    if not text:
        raise UsageError(f"users: {name!r} has no password.")
    return Secret(text.encode())


def _auth_secret(text: str) -> Secret:
    if len(text) < MIN_SECRET:
        raise UsageError(
            f"auth-secret has at least {MIN_SECRET} characters.", hint="`openssl rand -base64 32` makes one."
        )
    return Secret(text.encode())


def _realm(text: str) -> str:
    if not 0 < len(text.encode()) <= MAX_REALM or not text.isprintable() or '"' in text:
        raise UsageError(f"realm has 1 to {MAX_REALM} bytes and no quotation mark.")
    return text


def _binding(rate: int | None) -> Allowance:
    if rate is None:
        return BINDING
    if rate < 1:
        raise UsageError("binding-rate is at least 1.")
    return Allowance(rate, rate * BINDING.burst / BINDING.rate)


def _limits(settings: TurnSettings) -> Limits:
    changed: dict[str, Any] = {}
    for name in ("allocations", "allocations_per_user", "allocations_per_source"):
        value = getattr(settings, name)
        if value is None:
            continue
        if value < 0:
            raise UsageError(f"{name.replace('_', '-')} is not negative.")
        changed[name] = value
    if settings.bytes_per_second is not None:
        changed["bytes_per_second"] = float(parse_size(str(settings.bytes_per_second)))
    return replace(default_limits(), **changed)
