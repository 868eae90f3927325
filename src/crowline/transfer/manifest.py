"""What is offered: folders and files with their sizes and permissions, checked before anybody acts on it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from crowline.base.errors import MalformedMessage
from crowline.transfer.names import acts_unasked, check_target, split_path, twin_key

MAX_ENTRIES = 100_000
"""Files and folders of one offer: a large photo library; beside their paths about 40 MB of memory."""

MAX_NAMES = 64 << 20
"""Bytes of memory that all paths of one offer may take: 100,000 of 300 letters of any alphabet."""

MAX_TOTAL_BYTES = 2**63 - 1
"""Bytes of one offer: what a signed 64-bit file offset can name."""

PERMISSIONS = 0o777
"""The mode bits that travel. Set-user-id, set-group-id and sticky never do."""

Mode = Annotated[int, msgspec.Meta(ge=0, le=PERMISSIONS)]
Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOTAL_BYTES)]


class UnacceptableManifest(MalformedMessage):
    """The other side made an offer that contradicts itself."""


class Folder(msgspec.Struct, frozen=True, array_like=True):
    """A folder: its path, components joined by ``/``, and its permissions."""

    path: str
    mode: Mode


class File(msgspec.Struct, frozen=True, array_like=True):
    """A regular file: its path, components joined by ``/``, its size in bytes and its permissions."""

    path: str
    size: Size
    mode: Mode


class Link(msgspec.Struct, frozen=True, array_like=True):
    """A symbolic link in an offered folder: its path, and what it points to, which is in that folder too."""

    path: str
    target: str


class Item(msgspec.Struct, frozen=True):
    """One thing of an offer as a person sees it: a file, or a whole folder with what is in it."""

    name: str
    is_folder: bool
    files: int
    size: int


class Manifest(msgspec.Struct, frozen=True):
    """Folders, each before what is in it, files in the order in which they are sent, and links.

    A file's index is its place in `files`.
    """

    folders: tuple[Folder, ...]
    files: tuple[File, ...]
    links: tuple[Link, ...] = ()

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def items(self) -> list[Item]:
        """The top-level files and folders, in the order of the offer, folders first."""
        counts: dict[str, tuple[bool, int, int]] = {}
        for folder in self.folders:
            if "/" not in folder.path:
                counts[folder.path] = (True, 0, 0)
        for file in self.files:
            name = file.path.partition("/")[0]
            is_folder, files, size = counts.get(name, (False, 0, 0))
            counts[name] = (is_folder, files + 1, size + file.size)
        return [Item(name, *rest) for name, rest in counts.items()]

    def unasked(self) -> list[str]:
        """The top-level names that a shell or desktop may obey once they are in somebody's folder."""
        return [item.name for item in self.items() if acts_unasked(item.name)]


class ManifestBuilder:
    """Checks an offer entry by entry as it arrives. Every method but `build` may raise `MalformedMessage`."""

    def __init__(self) -> None:
        self._folders: list[Folder] = []
        self._files: list[File] = []
        self._links: list[Link] = []
        self._folder_paths: set[str] = set()
        # Digests: a sender's long names are held once, and no two of them can be made to collide.
        self._taken: set[bytes] = set()
        self._names = 0
        self._total = 0

    @property
    def count(self) -> int:
        return len(self._folders) + len(self._files) + len(self._links)

    def add(self, folders: Iterable[Folder], files: Iterable[File], links: Iterable[Link] = ()) -> None:
        """Raises `UnsafeName` or `UnacceptableManifest`, and keeps nothing of the offending entry."""
        for folder in folders:
            self._claim(folder.path)
            self._folder_paths.add(folder.path)
            self._folders.append(folder)
        for file in files:
            self._claim(file.path)
            self._total += file.size
            if self._total > MAX_TOTAL_BYTES:
                raise UnacceptableManifest("The offer is larger than any disk.")
            self._files.append(file)
        for link in links:
            self._claim(link.path, link.target)
            check_target(link.path, link.target)
            self._links.append(link)

    def build(self) -> Manifest:
        return Manifest(tuple(self._folders), tuple(self._files), tuple(self._links))

    def _claim(self, path: str, target: str = "") -> None:
        if self.count >= MAX_ENTRIES:
            raise UnacceptableManifest(f"The offer has more than {MAX_ENTRIES:,} files and folders.")
        # One wide letter makes all of a string wide, so characters or encoded bytes would not tell.
        self._names += sys.getsizeof(path) + (sys.getsizeof(target) if target else 0)
        if self._names > MAX_NAMES:
            raise UnacceptableManifest("The names in the offer are too long altogether.")
        components = split_path(path)
        if len(components) > 1 and "/".join(components[:-1]) not in self._folder_paths:
            raise UnacceptableManifest("The offer has a file outside its folders.")
        key = hashlib.blake2b(twin_key(path).encode(), digest_size=16).digest()
        if key in self._taken:
            raise UnacceptableManifest("The offer has two names that some systems take for one.")
        self._taken.add(key)


def checked_manifest(
    folders: Sequence[Folder], files: Sequence[File], links: Sequence[Link] = ()
) -> Manifest:
    """A manifest that every receiver will accept. Raises `MalformedMessage`."""
    builder = ManifestBuilder()
    builder.add(folders, files, links)
    return builder.build()
