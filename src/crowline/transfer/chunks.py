"""Chunks: the pieces of a file that two sides compare before anything of it moves.

A receiver that has something of a file says how many bytes; the sender gives the SHA-256 of each chunk of
them; the receiver answers which chunks it needs. So the sender proves what it has, and the receiver tells
nothing of its files but where they differ.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

DIGEST_BYTES = 32
"""Of SHA-256."""

MIN_CHUNK = 1 << 20
"""Bytes of a chunk: hashed in a millisecond, and little to lose where one bit differs."""

MAX_CHUNKS = 1 << 15
"""Chunks of one file: their digests are 1 MiB, one frame. Files beyond 32 GiB have larger chunks."""


def chunk_size(size: int) -> int:
    """Bytes of each chunk, but perhaps the last, of a file of `size` bytes: a power of two."""
    chunk = MIN_CHUNK
    while chunk * MAX_CHUNKS < size:
        chunk *= 2
    return chunk


def chunk_count(length: int, size: int) -> int:
    """Chunks in the first `length` bytes of a file of `size` bytes."""
    return -(-length // chunk_size(size))


def comparable(there: int, size: int) -> int | None:
    """How many bytes of a file of `size` bytes are worth comparing with `there` bytes that somebody has.

    Whole chunks, or all of the file; ``None`` if there is nothing to compare.
    """
    if not size:
        return None if there else 0
    if there >= size:
        return size
    return there // chunk_size(size) * chunk_size(size) or None


class Run(Struct, frozen=True):
    """Bytes `start` to `end` of a file, which the receiver has or does not."""

    start: int
    end: int
    kept: bool


class Comparison(Struct, frozen=True):
    """What the receiver has of a file of `size` bytes: of the first `length` bytes, all but the chunks whose
    bits are set in `missing` (bit 0 is the first chunk)."""

    size: int
    length: int
    missing: int

    @classmethod
    def decode(cls, size: int, length: int, bitmap: bytes) -> Comparison | None:
        """From the bitmap on the wire; ``None`` if it is not one for so many chunks."""
        count = chunk_count(length, size)
        missing = int.from_bytes(bitmap, "little")
        if len(bitmap) != -(-count // 8) or missing >> count:
            return None
        return cls(size, length, missing)

    def encode(self) -> bytes:
        return self.missing.to_bytes(-(-chunk_count(self.length, self.size) // 8), "little")

    @property
    def is_whole(self) -> bool:
        """The receiver has all of the file."""
        return self.length == self.size and not self.missing

    @property
    def kept(self) -> int:
        """Bytes that the receiver has."""
        return sum(run.end - run.start for run in self.runs() if run.kept)

    def keeps(self, start: int, end: int) -> bool:
        """Whether the receiver has all of bytes `start` to `end`."""
        if end > self.length:
            return False
        chunk = chunk_size(self.size)
        first, last = start // chunk, -(-end // chunk)
        return not (self.missing >> first) & ((1 << (last - first)) - 1)

    def runs(self) -> Iterator[Run]:
        """The whole file, from the first byte to the last, as few runs as there are."""
        chunk = chunk_size(self.size)
        start, kept = 0, True
        for number in range(chunk_count(self.length, self.size)):
            has = not self.missing >> number & 1
            if has != kept:
                if number:
                    yield Run(start, number * chunk, kept)
                start, kept = number * chunk, has
        if self.length > start:
            yield Run(start, self.length, kept)
        if self.size > self.length:
            yield Run(self.length, self.size, False)
