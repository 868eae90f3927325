"""What the links of a session have to know of its streams."""

from __future__ import annotations

from typing import Protocol


class Load(Protocol):
    """What there is to carry."""

    @property
    def in_flight(self) -> int:
        """Stream bytes given to links and not acknowledged."""

    @property
    def waits_for_path(self) -> bool:
        """Whether bytes wait although their reader keeps up."""


class NoLoad:
    """Nothing."""

    in_flight = 0
    waits_for_path = False
