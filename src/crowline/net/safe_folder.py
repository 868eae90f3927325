"""The receiving side's folder: nothing lands outside it, replaces anything in it, or looks whole too early.

A file is written under a name of ours and gets its own when it is verified. A whole folder is put
together in a folder of ours and gets its name at the end, or, if not all of it came, the name with
``(incomplete)`` behind it. A name that is taken becomes ``name (1)``, counting up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from crowline.base.errors import LocalProblem, UsageError
from crowline.base.machine import Buffer
from crowline.net.directory import HAS_DIR_FD, Directory
from crowline.net.file_problems import DiskFull, human_size, local_problem
from crowline.transfer.manifest import Folder
from crowline.transfer.names import display_name, incomplete, numbered, split_path

RESERVE_BYTES = 64 << 20
"""Bytes left free on the disk, so that other programs go on: a full system disk stops them too."""

RESERVE_SHARE = 100
"""On a small disk, one part in so many is left free instead."""

BLOCK_BYTES = 4096
"""What an entry may cost beyond its bytes: a part of a block, and its name."""

KEPT_PERMISSIONS = 0o755
"""The mode bits that arrive. Letting others write is the receiver's decision, not the sender's."""

MAX_NUMBER = 10_000
"""Names tried before giving up: a folder with as many copies of one name needs a person."""


class SafeFolder:
    """Files and folders of one transfer in one folder of the user's choice. For one thread at a time."""

    def __init__(self, root: Directory, *, entropy: Callable[[int], bytes], durable: bool) -> None:
        self._root = root
        self._entropy = entropy
        self._durable = durable
        self._folders: list[tuple[tuple[str, ...], int]] = []
        self._staged: dict[str, str] = {}
        self._incomplete: set[str] = set()
        self._saved: dict[str, str] = {}
        self._near: tuple[tuple[str, ...], Directory] | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        entropy: Callable[[int], bytes] = os.urandom,
        durable: bool = False,
        by_descriptor: bool = HAS_DIR_FD,
    ) -> SafeFolder:
        """Open `folder`, made if it is not there. With `durable`, each file is on the disk before it gets its
        name. Raises `LocalProblem`."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            root = Directory.open(folder, by_descriptor=by_descriptor)
        except OSError as error:
            raise local_problem(error, f"use the folder {display_name(str(folder))}") from error
        return cls(root, entropy=entropy, durable=durable)

    @property
    def path(self) -> Path:
        return self._root.path

    def require_space(self, size: int, entries: int) -> None:
        """Raise `DiskFull` unless `size` bytes in so many entries fit, and leave a reserve."""
        try:
            free, total = self._root.space()
        except OSError as error:
            raise local_problem(error, f"look at the folder {display_name(str(self.path))}") from error
        needed = size + entries * BLOCK_BYTES + min(RESERVE_BYTES, total // RESERVE_SHARE)
        if needed > free:
            raise DiskFull(
                f"There is not enough room in {display_name(str(self.path))}: "
                f"{human_size(needed)} are needed, {human_size(free)} are free.",
                hint="Free some space, or choose another folder with --out.",
            )

    def create_folders(self, folders: Sequence[Folder]) -> None:
        """Make the offered folders, each after the one that holds it. Raises `LocalProblem`."""
        for folder in folders:
            parts = split_path(folder.path)
            try:
                if len(parts) == 1:
                    self._staged[parts[0]] = name = self._part_name()
                    self._root.make_folder(name)
                else:
                    self._directory(parts[:-1]).make_folder(parts[-1])
            except OSError as error:
                raise local_problem(error, f"make the folder {display_name(folder.path)}") from error
            self._folders.append((parts, folder.mode))

    def create_file(self, path: str, mode: int) -> IncomingFile:
        """Begin a file in a folder that has been made. Raises `LocalProblem`, `UnsafeName`, `UsageError`."""
        parts = split_path(path)
        try:
            directory = self._directory(parts[:-1]).duplicate()
        except OSError as error:
            raise local_problem(error, f"write {display_name(path)}") from error
        part_name = self._part_name()
        try:
            descriptor = directory.create_file(part_name)
        except OSError as error:
            directory.close()
            raise local_problem(error, f"write {display_name(path)}") from error
        return IncomingFile(self, directory, descriptor, part_name, parts, mode)

    def settle(self) -> dict[str, str]:
        """Everything has come: give the folders their permissions and names. Returns what each top-level
        file and folder of the offer is called now. Raises `LocalProblem`."""
        for parts, mode in reversed(self._folders):
            try:
                self._settle_folder(parts, mode)
            except OSError as error:
                raise local_problem(error, f"finish the folder {display_name('/'.join(parts))}") from error
        self._folders.clear()
        if self._durable:
            try:
                self._root.flush()
            except OSError as error:
                raise local_problem(error, f"write to {display_name(str(self.path))}") from error
        return self._saved

    def give_up(self) -> dict[str, str]:
        """Not everything has come: remove what is empty, and call the rest incomplete.
        Returns what stays, as `settle` does."""
        for parts, _ in reversed(self._folders):
            try:
                self._give_up_folder(parts)
            except (OSError, LocalProblem):
                # The folder keeps the name that says that it is a part.
                continue
        self._folders.clear()
        return self._saved

    def close(self) -> None:
        self._leave()
        self._root.close()

    def _settle_folder(self, parts: tuple[str, ...], mode: int) -> None:
        if len(parts) > 1:
            self._directory(parts).set_mode(mode & KEPT_PERMISSIONS)
            return
        self._leave()
        name = parts[0]
        wished = incomplete(name) if name in self._incomplete else name
        self._saved[name] = self._rename_counting(self._staged[name], wished)
        folder = self._root.open_folder(self._saved[name])
        try:
            folder.set_mode(mode & KEPT_PERMISSIONS)
        finally:
            folder.close()

    def _give_up_folder(self, parts: tuple[str, ...]) -> None:
        if len(parts) > 1:
            self._directory(parts[:-1]).remove_folder(parts[-1])
            return
        self._leave()
        try:
            self._root.remove_folder(self._staged[parts[0]])
        except OSError:
            self._saved[parts[0]] = self._rename_counting(self._staged[parts[0]], incomplete(parts[0]))

    def _rename_counting(self, old: str, name: str) -> str:
        return _first_free(lambda new: self._root.rename_folder(old, new), name, folder=True)

    def _directory(self, parts: tuple[str, ...]) -> Directory:
        """The folder of `parts`, entered one by one; it stays open until another is asked for."""
        if not parts:
            return self._root
        if self._near is not None and self._near[0] == parts:
            return self._near[1]
        if parts[0] not in self._staged:
            raise UsageError("that folder was not made")
        self._leave()
        current = self._root
        for name in (self._staged[parts[0]], *parts[1:]):
            try:
                following = current.open_folder(name)
            finally:
                if current is not self._root:
                    current.close()
            current = following
        self._near = (parts, current)
        return current

    def _leave(self) -> None:
        if self._near is not None:
            self._near[1].close()
            self._near = None

    def _part_name(self) -> str:
        return f".crowline-{self._entropy(8).hex()}.part"

    def _stored(self, parts: tuple[str, ...], name: str) -> None:
        if len(parts) == 1:
            self._saved[parts[0]] = name

    def _lost(self, parts: tuple[str, ...]) -> None:
        self._incomplete.add(parts[0])

    @property
    def durable(self) -> bool:
        """Whether a file is on the disk before it gets its name."""
        return self._durable


class IncomingFile:
    """A file that is being received, under a name of ours. End it with `commit` or `discard`."""

    def __init__(
        self,
        folder: SafeFolder,
        directory: Directory,
        descriptor: int,
        part_name: str,
        parts: tuple[str, ...],
        mode: int,
    ) -> None:
        self._folder = folder
        self._directory = directory
        self._descriptor = descriptor
        self._part_name = part_name
        self._parts = parts
        self._mode = mode & KEPT_PERMISSIONS
        self._open = True

    def write(self, data: Buffer) -> None:
        """Append `data`. Raises `LocalProblem`, `DiskFull` if it is that; then `discard` the file."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise local_problem(error, f"write {self._shown}") from error

    def commit(self) -> str:
        """Give the file its permissions and its name, or the next free one, which is returned.

        Raises `LocalProblem`; then nothing is left of the file.
        """
        try:
            return self._commit()
        except OSError as error:
            raise local_problem(error, f"keep {self._shown}") from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave nothing of the file. Does nothing after `commit`."""
        if not self._open:
            return
        self._folder._lost(self._parts)
        # Gone already, or the disk is: nothing under the file's own name can be left.
        with contextlib.suppress(OSError):
            self._close_descriptor()
        with contextlib.suppress(OSError):
            self._directory.remove_file(self._part_name)
        self._end()

    def _commit(self) -> str:
        if hasattr(os, "fchmod"):
            os.fchmod(self._descriptor, self._mode)
        if self._folder.durable:
            os.fsync(self._descriptor)
        written = os.fstat(self._descriptor)
        # Closed before it gets its name: some network file systems say only now that the disk is full.
        self._close_descriptor()
        placed = _first_free(lambda new: self._directory.rename_file(self._part_name, new), self._parts[-1])
        found = self._directory.status(placed)
        if (found.st_dev, found.st_ino) != (written.st_dev, written.st_ino):
            raise LocalProblem(f"Could not keep {self._shown}: another program put something in its place.")
        if self._folder.durable:
            self._flush_name(placed)
        self._end()
        self._folder._stored(self._parts, placed)
        return placed

    def _flush_name(self, placed: str) -> None:
        try:
            self._directory.flush()
        except OSError:
            with contextlib.suppress(OSError):
                self._directory.remove_file(placed)
            raise

    def _close_descriptor(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _end(self) -> None:
        self._open = False
        self._directory.close()

    @property
    def _shown(self) -> str:
        return display_name("/".join(self._parts))


def _first_free(rename: Callable[[str], None], name: str, *, folder: bool = False) -> str:
    """Call `rename` with `name`, ``name (1)`` … until one is free; that one is returned."""
    for number in range(MAX_NUMBER):
        candidate = numbered(name, number, folder=folder) if number else name
        try:
            rename(candidate)
        except FileExistsError:
            continue
        return candidate
    raise LocalProblem(f"There are too many files called {display_name(name)} already.")
