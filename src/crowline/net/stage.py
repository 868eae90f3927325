"""A top-level folder of an offer while it is put together."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct, field

from crowline.net.directory import Directory
from crowline.net.folder_walk import FolderWalk
from crowline.net.parts import random_name
from crowline.transfer.manifest import Manifest
from crowline.transfer.names import incomplete, is_private, private_name


class Stage(Struct):
    """Where the offered folder called `wished` is put together: the folder `name`, locked while it is used.

    An `adopted` one is what an earlier transfer left; a `merged` one is the user's own folder.
    """

    wished: str
    name: str
    lock: Directory
    adopted: bool = False
    merged: bool = False
    is_incomplete: bool = False
    files: int = 0
    folders: list[tuple[tuple[str, ...], int]] = field(default_factory=list)
    links: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    there: dict[tuple[str, ...], bytes] = field(default_factory=dict)
    """Files that the user's folder of the wished name has, just as they are offered, with their hashes."""

    def within(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Where a path of the offer is on the disk."""
        return (self.name, *parts[1:])

    def is_all_there(self, walk: FolderWalk) -> bool:
        """Whether the user's folder of the wished name has all that is offered. `walk` begins above it."""
        if len(self.there) != self.files or self.is_incomplete:
            return False
        try:
            for parts, _ in self.folders:
                walk.enter(parts)
            return all(
                walk.enter(parts[:-1]).link_target(parts[-1]) == target for parts, target in self.links
            )
        except OSError:
            return False

    def clear(self, walk: FolderWalk) -> None:
        """All has come: remove what transfers left unfinished in it. `walk` begins above it. May raise
        `OSError`."""
        for parts, _ in self.folders:
            folder = walk.enter(self.within(parts))
            for name in filter(is_private, folder.names()):
                folder.remove_file(name)


class Offered:
    """The paths of an offer, to tell what is left of it from what is somebody's."""

    def __init__(self, manifest: Manifest) -> None:
        self._folders = {folder.path for folder in manifest.folders}
        self._others = {file.path for file in manifest.files} | {link.path for link in manifest.links}

    def is_all_of(self, folder: Directory, path: str) -> bool:
        """Whether everything in `folder`, offered as `path`, is from an offer like this. May raise `OSError`.

        What an earlier transfer of other things left is not mixed with this one's, and what somebody put
        there is not taken over.
        """
        for name in folder.names():
            inside = f"{path}/{name}"
            status = folder.status(name)
            if stat.S_ISDIR(status.st_mode):
                if inside not in self._folders:
                    return False
                with opened(folder, name) as below:
                    if not self.is_all_of(below, inside):
                        return False
            elif inside not in self._others and not is_private(name):
                return False
        return True


def adopt(root: Directory, wished: str, offered: Offered) -> Stage | None:
    """What an earlier transfer left of the folder `wished`, if it left something. May raise `OSError`."""
    for name in (private_name(wished), incomplete(wished)):
        lock = _left(root, name)
        if lock is None:
            continue
        if not offered.is_all_of(lock, wished):
            lock.close()
            continue
        lock.set_mode(0o700)
        if name != private_name(wished):
            root.rename_folder(name, private_name(wished))
        return Stage(wished, private_name(wished), lock, adopted=True)
    return None


def begin(root: Directory, wished: str, entropy: Callable[[int], bytes]) -> Stage:
    """A new folder. May raise `OSError`."""
    for name in (private_name(wished), random_name(entropy)):
        try:
            root.make_folder(name)
        except FileExistsError:
            continue
        lock = root.open_folder(name)
        if lock.lock():
            return Stage(wished, name, lock)
        # Another transfer has found it at once.
        lock.close()
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def merge(root: Directory, wished: str) -> Stage | None:
    """The user's own folder `wished`, if there is one."""
    lock = _left(root, wished)
    return None if lock is None else Stage(wished, wished, lock, merged=True)


@contextmanager
def opened(folder: Directory, name: str) -> Iterator[Directory]:
    below = folder.open_folder(name)
    try:
        yield below
    finally:
        below.close()


def _left(root: Directory, name: str) -> Directory | None:
    """The folder `name`, locked; ``None`` if there is none, it is not ours, or somebody is at it."""
    try:
        folder = root.open_folder(name)
    except OSError:
        return None
    status = folder.own_status()
    owner = getattr(os, "geteuid", lambda: status.st_uid)()
    if status.st_uid == owner and folder.lock() and _is_called(root, name, status):
        return folder
    folder.close()
    return None


def _is_called(root: Directory, name: str, status: os.stat_result) -> bool:
    """Whether a folder still has that name: whoever had it locked may have finished it just now."""
    try:
        return os.path.samestat(status, root.status(name))
    except OSError:
        return False
