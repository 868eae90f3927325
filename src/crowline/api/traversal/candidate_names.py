"""Names in place of host addresses: ours, where they are hidden, and those of the other side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from crowline.base.mdns_name import is_mdns_name
from crowline.ice.candidate import Candidate, CandidateType

if TYPE_CHECKING:
    from crowline.net.mdns import MdnsNames

# Names of the other side that are looked for in one meeting: one for each address of its machine, and again
# for each that it gets later.
MAX_LOOKED_FOR = 32


class CandidateNames:
    """Opens sockets when the first name is needed. `hides`: this side's host addresses are not told."""

    def __init__(self, hosts: Iterable[str], *, hides: bool) -> None:
        self._hosts = list(hosts)
        self._hides = hides
        self._names: MdnsNames | None = None
        # What the other side's names stand for; the ones that nobody answers for are asked for again.
        self._found: dict[str, str] = {}
        self._looked_for = 0

    def written(self, candidate: Candidate) -> str | None:
        """The host to tell of a candidate; ``None`` where it is to be hidden and cannot be named."""
        if not self._hides or candidate.type is not CandidateType.HOST:
            return candidate.address.host
        names = self._open()
        return names.name_of(candidate.address.host) if names.is_open else None

    async def find(self, name: str) -> str | None:
        """The address behind a name of the other side; ``None`` without an answer."""
        if name in self._found:
            return self._found[name]
        if self._looked_for >= MAX_LOOKED_FOR:
            return None
        self._looked_for += 1
        host = await self._open().resolve(name)
        if host is not None:
            self._found[name] = host
        return host

    def read(self, host: str) -> str | None:
        """The address that the other side means by `host`; ``None`` for a name that has not been found."""
        return self._found.get(host) if is_mdns_name(host) else host

    def follow(self, hosts: Iterable[str]) -> None:
        """This machine has these addresses now."""
        self._hosts = list(hosts)
        if self._names is not None:
            self._names.follow(self._hosts)

    def close(self) -> None:
        """No name is found any more, and no socket is opened for one."""
        self._hosts = []
        if self._names is not None:
            self._names.close()

    def _open(self) -> MdnsNames:
        if self._names is None:
            # Few meetings have names in them.
            from crowline.net.mdns import MdnsNames

            self._names = MdnsNames(self._hosts)
        return self._names
