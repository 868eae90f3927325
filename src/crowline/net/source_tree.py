"""What the user wants to send: files and folders found by looking at them, without reading any."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from crowline.base.errors import LocalProblem, MalformedMessage
from crowline.net.file_problems import local_problem
from crowline.transfer.manifest import (
    MAX_ENTRIES,
    PERMISSIONS,
    File,
    Folder,
    Link,
    Manifest,
    checked_manifest,
)
from crowline.transfer.names import (
    MAX_DEPTH,
    UnsafeName,
    check_target,
    display_name,
    is_private,
    numbered,
    portable,
    twin_key,
)


class SourceTree(Struct, frozen=True):
    """An offer and where its files are. `paths[i]` is the local path of `manifest.files[i]`.

    `warnings` are sentences about what was kept out or is offered under another name.
    """

    manifest: Manifest
    paths: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def walk(cls, paths: Sequence[str | Path]) -> SourceTree:
        """Look at `paths` and at everything in the folders among them.

        A path given by the user may be a symbolic link. Links found inside a folder are never followed: those
        that stay in the given folder are offered as links, others are kept out with a warning, as are
        unfinished files of ours and everything that is neither file nor folder. Raises `LocalProblem`
        for what is missing, unreadable, or too much.
        """
        walk = _Walk()
        for path in paths:
            walk.add_given(Path(path))
        try:
            manifest = checked_manifest(walk.folders, walk.files, walk.links)
        except MalformedMessage as error:
            raise LocalProblem(f"This cannot be sent: {error.message}") from error
        if not manifest.files and not manifest.folders and not manifest.links:
            raise LocalProblem("There is nothing to send.")
        return cls(manifest, tuple(walk.paths), tuple(walk.warnings))


class _Names:
    """Names given out in one folder: each one safe on every system, no two of them twins."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def choose(self, name: str) -> str:
        wished = portable(name)
        chosen, number = wished, 0
        while (key := twin_key(chosen)) in self._taken:
            number += 1
            chosen = numbered(wished, number)
        self._taken.add(key)
        return chosen


class _Walk:
    def __init__(self) -> None:
        self.folders: list[Folder] = []
        self.files: list[File] = []
        self.links: list[Link] = []
        self.paths: list[str] = []
        self.warnings: list[str] = []
        self._top = _Names()

    def add_given(self, path: Path) -> None:
        """A path that the user typed. It is offered by its last name; ``.`` and ``..`` by their real ones."""
        try:
            status = path.stat()
            real = path.resolve()
            name = path.name if path.name not in ("", "..") else real.name
        except (OSError, RuntimeError, ValueError) as error:
            reason = error if isinstance(error, OSError) else OSError(str(error))
            raise local_problem(reason, f"read {_shown(path)}") from error
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise LocalProblem(f"{_shown(path)} is neither a file nor a folder.")
        name = self._choose(self._top, str(path), name or "everything")
        # What is read is what was looked at: a link that the user named is followed here, once.
        pending = [iter([(str(real if path.is_symlink() else path), name, status)])]
        while pending:
            entry = next(pending[-1], None)
            if entry is None:
                pending.pop()
            elif (inside := self._add(*entry)) is not None:
                pending.append(inside)

    def _add(
        self, path: str, offered: str, status: os.stat_result
    ) -> Iterator[tuple[str, str, os.stat_result]] | None:
        """Take one file or folder; of a folder, what is in it is returned."""
        if len(self.folders) + len(self.files) + len(self.links) >= MAX_ENTRIES:
            raise LocalProblem(
                f"There are more than {MAX_ENTRIES:,} files and folders to send.",
                hint="Pack them into an archive first.",
            )
        if stat.S_ISLNK(status.st_mode):
            self._add_link(path, offered)
            return None
        _require_readable(path)
        if stat.S_ISDIR(status.st_mode):
            self.folders.append(Folder(offered, status.st_mode & PERMISSIONS))
            return self._inside(path, offered)
        self.files.append(File(offered, status.st_size, status.st_mode & PERMISSIONS))
        self.paths.append(path)
        return None

    def _add_link(self, path: str, offered: str) -> None:
        """A symbolic link, kept as one if it stays in the folder that the user gave."""
        try:
            target = Path(path).readlink().as_posix()
            check_target(offered, target)
        except UnsafeName:
            self.warnings.append(f"{_shown(path)} is a symbolic link out of its folder and is not sent.")
        except OSError as error:
            raise local_problem(error, f"read {_shown(path)}") from error
        else:
            self.links.append(Link(offered, target))

    def _inside(self, folder: str, offered: str) -> Iterator[tuple[str, str, os.stat_result]]:
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            raise local_problem(error, f"read the folder {_shown(folder)}") from error
        if entries and offered.count("/") + 2 > MAX_DEPTH:
            raise LocalProblem(
                f"{_shown(folder)} is nested deeper than {MAX_DEPTH} folders.",
                hint="Pack it into an archive first.",
            )
        names = _Names()
        for entry in entries:
            status = self._status(entry)
            if status is not None:
                yield entry.path, f"{offered}/{self._choose(names, entry.path, entry.name)}", status

    def _status(self, entry: os.DirEntry[str]) -> os.stat_result | None:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            self.warnings.append(f"{_shown(entry.path)} vanished and is not sent.")
            return None
        except OSError as error:
            raise local_problem(error, f"read {_shown(entry.path)}") from error
        if is_private(entry.name):
            self.warnings.append(f"{_shown(entry.path)} is not received whole and is not sent.")
            return None
        if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            self.warnings.append(f"{_shown(entry.path)} is neither a file nor a folder and is not sent.")
            return None
        return status

    def _choose(self, names: _Names, path: str, name: str) -> str:
        chosen = names.choose(name)
        if chosen != name:
            self.warnings.append(f"{_shown(path)} is sent as {display_name(chosen)}.")
        return chosen


def _require_readable(path: str) -> None:
    effective = os.access in os.supports_effective_ids
    if not os.access(path, os.R_OK, effective_ids=effective):
        raise LocalProblem(
            f"Could not read {_shown(path)}: permission denied.", hint="Look at its permissions."
        )


def _shown(path: str | Path) -> str:
    return display_name(str(path))
