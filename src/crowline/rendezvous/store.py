"""Where a hub keeps its meetings."""

from __future__ import annotations

from typing import Protocol

from crowline.rendezvous.mailbox import Mailbox, Side


class Store(Protocol):
    """Finds meetings by number or name, by a side's token and by a side's TURN user."""

    def __len__(self) -> int: ...

    def add(self, box: Mailbox) -> bool:
        """Keep a new meeting with its host. False if the number or name is taken."""

    def join(self, box: Mailbox, side: Side) -> bool:
        """Give the second place to `side`, in one step: of many that try, one wins."""

    def remove(self, box: Mailbox) -> None: ...

    def by_number(self, number: int) -> Mailbox | None: ...

    def by_name(self, name: bytes) -> Mailbox | None: ...

    def by_token(self, token: str) -> tuple[Mailbox, Side] | None: ...

    def by_user(self, user: str) -> Mailbox | None: ...

    def count_source(self, source: str) -> int:
        """Meetings that this source hosts."""


class MemoryStore:
    """All in this process; a restart forgets everything, and clients begin anew."""

    def __init__(self) -> None:
        self._boxes: dict[int | bytes, Mailbox] = {}
        self._tokens: dict[str, tuple[Mailbox, Side]] = {}
        self._users: dict[str, Mailbox] = {}
        self._sources: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._boxes)

    def add(self, box: Mailbox) -> bool:
        if (key := box.name or box.number) in self._boxes:
            return False
        self._boxes[key] = box
        self._sources[box.source] = self._sources.get(box.source, 0) + 1
        self._index(box, box.host)
        return True

    def join(self, box: Mailbox, side: Side) -> bool:
        if box.join is not None:
            return False
        box.join = side
        self._index(box, side)
        return True

    def remove(self, box: Mailbox) -> None:
        if self._boxes.get(key := box.name or box.number) is not box:
            return
        del self._boxes[key]
        for side in box.sides():
            del self._tokens[side.token]
            del self._users[side.user]
        self._sources[box.source] -= 1
        if not self._sources[box.source]:
            del self._sources[box.source]

    def by_number(self, number: int) -> Mailbox | None:
        return self._boxes.get(number)

    def by_name(self, name: bytes) -> Mailbox | None:
        return self._boxes.get(name)

    def by_token(self, token: str) -> tuple[Mailbox, Side] | None:
        return self._tokens.get(token)

    def by_user(self, user: str) -> Mailbox | None:
        return self._users.get(user)

    def count_source(self, source: str) -> int:
        return self._sources.get(source, 0)

    def _index(self, box: Mailbox, side: Side) -> None:
        self._tokens[side.token] = (box, side)
        self._users[side.user] = box
