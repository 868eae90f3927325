"""What the kernel laboratory is made of, as its users see it: hosts and sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from crowline.lab.profile import Profile

Translator: TypeAlias = Literal["kernel", "user"]


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the lab. `addresses` are its own, IPv4 first: behind a translator the inside one."""

    name: str
    namespace: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """Hosts behind the translators of a profile, or public ones.

    `outside` is the IPv4 host that others see, one for each host where there is no translator. `translators`
    says who each translator is, the innermost first: nftables or the wire. `proxy` is the URL of the site's
    HTTP proxy, empty without one.
    """

    name: str
    profile: Profile
    translators: tuple[Translator, ...]
    outside: tuple[str, ...]
    hosts: tuple[Host, ...]
    proxy: str = ""

    @property
    def is_translated(self) -> bool:
        return bool(self.translators)
