"""Names in place of host addresses in candidates."""

from __future__ import annotations

import pytest

from crowline.base.mdns_name import is_mdns_name, mdns_name

UUID = "1f4712db-ea17-4bcf-a596-105139dfd8bf"


@pytest.mark.parametrize("name", [f"{UUID}.local", f"{UUID.upper()}.LOCAL"])
def test_a_random_uuid_below_local_is_a_name(name: str) -> None:
    """Whatever the case of its letters."""
    assert is_mdns_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "printer.local",
        UUID,
        f"{UUID}.local.",
        f"{UUID}.example",
        f"x.{UUID}.local",
        f"{UUID}.local\n",
        f" {UUID}.local",
        UUID.replace("-", "") + ".local",
        UUID.replace("-4b", "-1b") + ".local",
        UUID.replace("-a5", "-c5") + ".local",
        UUID.replace("1f4", "1g4") + ".local",
        "１" + UUID[1:] + ".local",
    ],
)
def test_everything_else_is_refused(name: str) -> None:
    """A name of the other side's choice would be a question about this network."""
    assert not is_mdns_name(name)


@pytest.mark.parametrize("random", [bytes(16), b"\xff" * 16, bytes(range(16))])
def test_names_are_made_of_random_bytes(random: bytes) -> None:
    """122 of the 128 bits are left as they are."""
    name = mdns_name(random)
    assert is_mdns_name(name)
    assert name == name.lower()


def test_other_bytes_give_another_name() -> None:
    """Each random bit counts but the six that say "version 4"."""
    base = int.from_bytes(bytes(range(16)))
    names = {mdns_name((base ^ 1 << bit).to_bytes(16)) for bit in range(128)} | {mdns_name(bytes(range(16)))}
    assert len(names) == 123
