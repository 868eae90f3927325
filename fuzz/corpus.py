"""The inputs that are kept: in `fuzz/corpus/<harness>/`, and what is not mended yet in `fuzz/findings/`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fuzz.harness import Harness

ROOT = Path(__file__).parent


def load(harness: Harness) -> list[bytes]:
    """The seeds and the kept inputs, always in the same order."""
    folder = ROOT / "corpus" / harness.name
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [*harness.seeds, *(file.read_bytes() for file in files)]


def keep(folder: Path, data: bytes) -> Path:
    """Write an input under the name of its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path
