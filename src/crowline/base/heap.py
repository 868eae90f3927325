"""How the C library keeps the memory of this process: runs of datagrams come and go in pieces of 64 KiB."""

from __future__ import annotations

# Bytes. Pieces up to that size are to come from the heap, and twice as much is to be kept free at its end.
_FREED = 4 << 20


def keep_freed() -> None:
    """Have it use freed memory again. By default glibc gives the end of its heap back as soon as 128 KiB are
    free there, and the kernel clears each page anew that is asked for next: a third of a receiver's time.

    glibc raises its limits by itself when it sees pieces come and go that are larger, so one is shown to it.
    None of its pages is ever touched. Where the limits were set by somebody (mallopt), they stay.
    """
    bytes(_FREED)
