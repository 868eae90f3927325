"""The command line: one file for each verb."""

from __future__ import annotations


def main() -> None:
    """Run the command line; leaves by `SystemExit` with an exit code of `docs/protocol.md`."""
    raise SystemExit(2)
