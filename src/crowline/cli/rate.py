"""Rates as people write them: ``500k``, ``2.5MB``, ``20Mbit``, with or without ``/s``."""

from __future__ import annotations

import re

import click

_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([kMGT]?)(B|bit|bps)?(?:/s)?", re.IGNORECASE)
_POWERS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class Rate(click.ParamType[int]):
    """Bytes a second, in powers of 1000; ``bit`` counts bits."""

    name = "rate"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _RATE.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is no rate. It looks like 500k, 2.5MB or 20Mbit.", param, ctx)
        number, power, unit = match.groups()
        is_bits = (unit or "").lower() in ("bit", "bps")
        rate = float(number) * _POWERS[power.lower()] / (8 if is_bits else 1)
        if rate < 1:
            self.fail("Less than one byte a second is no connection.", param, ctx)
        return int(rate)
