"""A wrapper that keeps secrets out of logs, tracebacks and reprs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Bytes that do not print. `reveal` is the only way to them, so that its uses can be searched for."""

    _value: bytes

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"
