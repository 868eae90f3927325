"""Who hears of the meetings of one session."""

from __future__ import annotations

from typing import Protocol

from crowline.base.errors import CrowlineError
from crowline.base.machine import Buffer
from crowline.rendezvous.code import Code
from crowline.rendezvous.signals import Description


class RejoinOwner(Protocol):
    """What is told of meetings."""

    def on_code(self, code: Code) -> None: ...

    def on_token(self, token: str) -> None: ...

    def on_ready(self) -> None:
        """This side can be met."""

    def on_present(self, at: float) -> None:
        """Both sides are there for the first time, since `at` on the loop's clock."""

    def on_absent_again(self) -> None:
        """Who was there was not the one; nobody has come yet."""

    def on_key(self, words: tuple[str, ...]) -> None:
        """The other side has proven itself for the first time."""

    def on_description(self, description: Description) -> None: ...

    def on_goodbye(self, code: int, sentence: str) -> None: ...

    def on_left(self, *, is_silent: bool) -> None:
        """The hub says that the other side is not connected to it any more."""

    def on_back(self) -> None:
        """It is again."""

    def on_met_again(self) -> None:
        """Both are in another meeting, and the other side has shown itself to be the same."""

    def on_hub_data(self, data: Buffer) -> None:
        """By link zero."""

    def on_warning(self, sentence: str) -> None: ...

    def flush(self) -> None: ...

    def end(self, error: CrowlineError) -> None:
        """End."""

    @property
    def is_usable(self) -> bool:
        """Whether bytes have been able to flow."""

    @property
    def is_lost(self) -> bool:
        """Whether nothing works now."""

    @property
    def is_over(self) -> bool: ...
