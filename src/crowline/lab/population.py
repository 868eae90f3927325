"""How common each kind of place in the world is, and pairs drawn from that."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec

from crowline.base.errors import LocalProblem, UsageError
from crowline.lab.presets import PRESETS
from crowline.lab.profile import Ipv6, PortMapping, Profile
from crowline.lab.virtual_attempt import Geometry

_DATA = "population.toml"

Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Milliseconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=10_000)]


class PlaceClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of place: a preset (or a place of the user's), its weight, and where the weight is from.

    `port_mapping` is the share of these hosts whose translator maps ports when asked.
    """

    name: str
    weight: Annotated[float, msgspec.Meta(ge=0)]
    place: str
    port_mapping: Share = 0.0
    source: str = ""


class Ipv6Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The share of all hosts that have IPv6 too, and which kind."""

    share: Share = 0.0
    kind: Ipv6 = Ipv6.FIREWALLED


class Paths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Milliseconds one way, least and most; the share of packets lost between any two places."""

    to_server: tuple[Milliseconds, Milliseconds] = (10, 10)
    between: tuple[Milliseconds, Milliseconds] = (20, 20)
    loss: Share = 0.0


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    classes: Annotated[tuple[PlaceClass, ...], msgspec.Meta(min_length=1)]
    ipv6: Ipv6Share = Ipv6Share()
    paths: Paths = Paths()


@dataclass(frozen=True, slots=True)
class Member:
    """One host that was drawn."""

    kind: str
    profile: Profile


@dataclass(frozen=True, slots=True)
class Pair:
    """Two hosts that were drawn, the distances between them, and the seed of their attempt."""

    a: Member
    b: Member
    geometry: Geometry
    seed: int


class Population:
    """Classes with their weights; the same seed and number draw the same pair."""

    def __init__(self, file: _File, places: Mapping[str, Profile]) -> None:
        """Raises `UsageError` for a class whose place nobody knows, and for weights that say nothing."""
        unknown = [each.place for each in file.classes if each.place not in places]
        if unknown:
            raise UsageError(f"{unknown[0]} is no place of the laboratory; there are: {', '.join(places)}")
        if not sum(each.weight for each in file.classes) > 0:
            raise UsageError("At least one class of a population has a weight above 0.")
        self.title = file.title
        self.classes = file.classes
        self._file = file
        self._places = dict(places)
        self._weights = [each.weight for each in file.classes]

    def pair(self, seed: int, number: int) -> Pair:
        """Pair `number` of the sample that `seed` names."""
        chance = random.Random(f"{seed}/{number}")
        a, b = self._member(chance), self._member(chance)
        paths = self._file.paths
        geometry = Geometry(
            to_server=chance.uniform(*paths.to_server) / 1e3,
            between=chance.uniform(*paths.between) / 1e3,
            loss=paths.loss,
        )
        return Pair(a, b, geometry, chance.getrandbits(48))

    def _member(self, chance: random.Random) -> Member:
        (kind,) = chance.choices(self.classes, self._weights)
        profile = self._places[kind.place]
        if kind.port_mapping and chance.random() < kind.port_mapping:
            profile = replace(profile, port_mapping=PortMapping.UPNP)
        if profile.ipv6 is Ipv6.NONE and chance.random() < self._file.ipv6.share:
            profile = replace(profile, ipv6=self._file.ipv6.kind)
        return Member(kind.name, profile)


def load_population(path: Path | None = None, places: Mapping[str, Profile] = PRESETS) -> Population:
    """The population of a TOML file, by default ours. Raises `LocalProblem` or `UsageError`."""
    name = _DATA if path is None else path.name
    try:
        source = files("crowline.lab").joinpath(_DATA) if path is None else path
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise LocalProblem(f"{name} cannot be read: {error.strerror}.") from error
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not TOML: {error}.") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {error}.", hint=f"{_DATA} of this program shows the form.") from error
    return Population(file, places)
