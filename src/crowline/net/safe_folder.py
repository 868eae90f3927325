"""The receiving side's folder: nothing lands outside it, replaces anything in it, or looks whole too early.

A file is written under a private name and gets its own when it is verified. A whole folder is put together
in a private folder and gets its name at the end, or, if not all of it came, the name with ``(incomplete)``
behind it. A name that is taken becomes ``name (1)``, counting up. Private names depend on the path only: a
later transfer finds what an earlier one left, and builds on it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from crowline.base.errors import LocalProblem, UsageError
from crowline.net.directory import HAS_DIR_FD, Directory
from crowline.net.file_problems import DiskFull, human_size, local_problem
from crowline.net.folder_walk import FolderWalk
from crowline.net.found_file import Found, Kind, Proof, everything
from crowline.net.incoming_file import KEPT_PERMISSIONS, IncomingFile, Place, first_free
from crowline.net.parts import claimed_part, new_part, own_file, part_of
from crowline.net.stage import Offered, Stage, adopt, begin, merge
from crowline.transfer.manifest import Manifest
from crowline.transfer.names import display_name, incomplete, private_name, split_path

RESERVE_BYTES = 64 << 20
"""Bytes left free on the disk, so that other programs go on: a full system disk stops them too."""

RESERVE_SHARE = 100
"""On a small disk, one part in so many is left free instead."""

BLOCK_BYTES = 4096
"""What an entry may cost beyond its bytes: a part of a block, and its name."""


class SafeFolder:
    """Files and folders of one transfer in one folder of the user's choice. For one thread at a time."""

    def __init__(self, root: Directory, *, entropy: Callable[[int], bytes]) -> None:
        self._root = root
        self._entropy = entropy
        self._stages: dict[str, Stage] = {}
        self._saved: dict[str, str] = {}
        self._warnings: tuple[str, ...] = ()
        self._staged = FolderWalk(root)
        self._there = FolderWalk(root)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        entropy: Callable[[int], bytes] = os.urandom,
        by_descriptor: bool = HAS_DIR_FD,
    ) -> SafeFolder:
        """Open `folder`, made if it is not there. Raises `LocalProblem`."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            root = Directory.open(folder, by_descriptor=by_descriptor)
        except OSError as error:
            raise local_problem(error, f"use the folder {display_name(str(folder))}") from error
        return cls(root, entropy=entropy)

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

    def prepare(self, manifest: Manifest, *, merged: bool = False) -> None:
        """Make the offered folders, each after the one that holds it, or go on with what an earlier transfer
        left of them; with `merged`, new things go into folders that are there. Raises `LocalProblem`."""
        offered = Offered(manifest)
        for folder in manifest.folders:
            parts = split_path(folder.path)
            try:
                if len(parts) == 1:
                    self._stages[parts[0]] = self._stage(parts[0], offered, merged)
                made = len(parts) > 1 and self._make_folder(parts)
            except OSError as error:
                raise local_problem(error, f"make the folder {display_name(folder.path)}") from error
            stage = self._stages[parts[0]]
            if made or not stage.merged:
                stage.folders.append((parts, folder.mode))
        for link in manifest.links:
            parts = split_path(link.path)
            self._stages[parts[0]].links.append((parts, link.target))
        for file in manifest.files:
            top = file.path.partition("/")[0]
            if top in self._stages:
                self._stages[top].files += 1

    def find(self, path: str) -> Found | None:
        """What there is already of a file, from an earlier transfer or the user's own."""
        parts = split_path(path)
        with contextlib.suppress(OSError):
            if len(parts) == 1:
                return part_of(self._root, path) or own_file(self._root, parts[0], Kind.THERE)
            stage = self._stages[parts[0]]
            if stage.adopted or stage.merged:
                directory = self._directory(parts[:-1])
                kind = Kind.THERE if stage.merged else Kind.STAGED
                found = part_of(directory, path) or own_file(directory, parts[-1], kind)
                if found or stage.merged:
                    return found
            return own_file(self._there.enter(parts[:-1]), parts[-1], Kind.THERE)
        return None

    def open_found(self, path: str, found: Found) -> int:
        """A descriptor to read what was found. May raise `OSError`."""
        parts = split_path(path)
        if found.kind is Kind.PART:
            return self._directory(parts[:-1]).open_file(private_name(path))
        if found.kind is Kind.THERE and not self._is_merged(parts):
            return self._there.enter(parts[:-1]).open_file(parts[-1])
        return self._directory(parts[:-1]).open_file(parts[-1])

    def create_file(
        self, path: str, mode: int, found: Found | None = None, proof: Proof | None = None
    ) -> IncomingFile:
        """Begin a file in a folder that has been made, on top of what was found of it.

        Raises `LocalProblem`, `UnsafeName`, `UsageError`.
        """
        parts = split_path(path)
        try:
            directory = self._directory(parts[:-1]).duplicate()
            try:
                return self._create_file(directory, path, mode, found, proof)
            except BaseException:
                directory.close()
                raise
        except OSError as error:
            raise local_problem(error, f"write {display_name(path)}") from error

    def write_small(self, path: str, mode: int, data: bytes) -> bool:
        """Write a whole verified file into a private folder. False if that must be done with `create_file`.
        Raises `LocalProblem`."""
        top, _, rest = path.partition("/")
        if not rest or self._stages[top].merged:
            return False
        parts = split_path(path)
        try:
            directory = self._directory(parts[:-1])
            descriptor = directory.create_file(parts[-1])
        except FileExistsError:
            return False
        except OSError as error:
            raise local_problem(error, f"write {display_name(path)}") from error
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                if file.write(data) != len(data):
                    raise OSError(28, "No space left on device")
                if hasattr(os, "fchmod"):
                    os.fchmod(descriptor, mode & KEPT_PERMISSIONS)
        except OSError as error:
            with contextlib.suppress(OSError):
                directory.remove_file(parts[-1])
            raise local_problem(error, f"write {display_name(path)}") from error
        return True

    def is_there(self, path: str, found: Found, sha256: bytes) -> None:
        """A found file is just as it was offered, with this hash."""
        parts = split_path(path)
        if len(parts) == 1:
            self._saved[path] = path
        elif found.kind is Kind.THERE and not self._stages[parts[0]].merged:
            self._stages[parts[0]].there[parts] = sha256

    def settle(self, stop: Callable[[], bool] = lambda: False) -> dict[str, str]:
        """Everything has come: give the folders their permissions and names. Returns what each top-level
        file and folder of the offer is called now. Raises `LocalProblem`, also when `stop` says so while
        something large is copied."""
        for stage in self._stages.values():
            try:
                self._settle(stage, stop)
            except OSError as error:
                raise local_problem(error, f"finish the folder {display_name(stage.wished)}") from error
        self._forget_stages()
        return self._saved

    def give_up(self) -> dict[str, str]:
        """Not everything has come: remove what is empty, and call the rest incomplete.
        Returns what stays, as `settle` does."""
        for stage in self._stages.values():
            # What cannot be renamed keeps the name that says that it is a part.
            with contextlib.suppress(OSError):
                self._give_up(stage)
        self._forget_stages()
        return self._saved

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what could not be made just as it was offered."""
        return self._warnings

    def close(self) -> None:
        self._leave()
        self._forget_stages()
        self._root.close()

    def stored(self, parts: tuple[str, ...], name: str) -> None:
        """A file has got its name."""
        if len(parts) == 1:
            self._saved[parts[0]] = name

    def lost(self, parts: tuple[str, ...]) -> None:
        """A file did not come whole."""
        if len(parts) > 1:
            self._stages[parts[0]].is_incomplete = True

    def _stage(self, name: str, offered: Offered, merged: bool) -> Stage:
        there = merge(self._root, name) if merged else None
        return there or adopt(self._root, name, offered) or begin(self._root, name, self._entropy)

    def _make_folder(self, parts: tuple[str, ...]) -> bool:
        """Whether a folder was made that was not there."""
        stage = self._stages[parts[0]]
        try:
            self._directory(parts[:-1]).make_folder(parts[-1])
        except FileExistsError:
            if not (stage.adopted or stage.merged):
                raise
            below = self._directory(parts)
            if stage.adopted:
                below.set_mode(0o700)
            return False
        return True

    def _create_file(
        self, directory: Directory, path: str, mode: int, found: Found | None, proof: Proof | None
    ) -> IncomingFile:
        parts, part = split_path(path), private_name(path)
        # What has its name in a folder that an earlier transfer left is an older version, of ours.
        replaces = len(parts) > 1 and self._stages[parts[0]].adopted
        descriptor = claimed_part(directory, part)
        if found is not None and found.kind is Kind.PART and proof is not None:
            if descriptor is None:
                raise LocalProblem(
                    f"Another transfer is at {display_name(path)}.", hint="Wait until it ends."
                )
            file = IncomingFile(self, Place(directory, part, parts, replaces), descriptor, mode)
            return _built(file, proof)
        source = -1
        if found is not None and proof is not None and proof.comparison.kept:
            source = self.open_found(path, found)
        try:
            if descriptor is None:
                descriptor, part = new_part(directory, part, self._entropy)
            else:
                os.ftruncate(descriptor, 0)
        except BaseException:
            if source >= 0:
                os.close(source)
            raise
        file = IncomingFile(self, Place(directory, part, parts, replaces), descriptor, mode)
        return _built(file, proof, source) if source >= 0 and proof is not None else file

    def _settle(self, stage: Stage, stop: Callable[[], bool]) -> None:
        if stage.there:
            if stage.is_all_there(self._there):
                self._give_up(stage)
                self._saved[stage.wished] = stage.wished
                return
            self._copy_there(stage, stop)
        if stage.adopted and not stage.is_incomplete:
            stage.clear(self._staged)
        for parts, target in stage.links:
            self._make_link(parts, target)
        for parts, mode in reversed(stage.folders):
            if len(parts) > 1:
                self._directory(parts).set_mode(mode & KEPT_PERMISSIONS)
        self._leave()
        if stage.merged:
            self._saved[stage.wished] = stage.wished
            return
        wished = incomplete(stage.wished) if stage.is_incomplete else stage.wished
        self._saved[stage.wished] = self._rename_counting(stage.name, wished)
        # The descriptor is of the folder, whatever it is called now.
        stage.name = self._saved[stage.wished]
        folder = self._root.open_folder(stage.name)
        try:
            folder.set_mode(stage.folders[0][1] & KEPT_PERMISSIONS)
        finally:
            folder.close()

    def _copy_there(self, stage: Stage, stop: Callable[[], bool]) -> None:
        """The offered folder gets another name than the one that is there: it needs files of its own."""
        for parts, sha256 in sorted(stage.there.items()):
            path, status = "/".join(parts), self._there.enter(parts[:-1]).status(parts[-1])
            found = Found(Kind.THERE, status.st_size)
            file = self.create_file(path, status.st_mode, found, everything(status.st_size))
            try:
                file.keep(status.st_size, stop)
                if file.sha256 != sha256:
                    file.discard()
                    raise LocalProblem(f"{display_name(path)} changed while it was received.")
                file.commit()
            finally:
                file.suspend()

    def _make_link(self, parts: tuple[str, ...], target: str) -> None:
        directory = self._directory(parts[:-1])
        stage = self._stages[parts[0]]
        try:
            if directory.link_target(parts[-1]) == target:
                return
            if stage.adopted:
                with contextlib.suppress(FileNotFoundError):
                    directory.remove_file(parts[-1])
            directory.make_link(parts[-1], target)
        except OSError as error:
            shown = display_name("/".join(parts))
            why = "the name is taken" if isinstance(error, FileExistsError) else os.strerror(error.errno or 0)
            self._warnings += (f"The symbolic link {shown} could not be made: {why}.",)

    def _give_up(self, stage: Stage) -> None:
        for parts, _ in reversed(stage.folders):
            if len(parts) > 1:
                with contextlib.suppress(OSError):
                    self._directory(parts[:-1]).remove_folder(parts[-1])
        self._leave()
        if stage.merged:
            return
        try:
            self._root.remove_folder(stage.name)
        except OSError:
            self._root.rename_folder(stage.name, incomplete(stage.wished))
            self._saved[stage.wished] = stage.name = incomplete(stage.wished)

    def _rename_counting(self, old: str, name: str) -> str:
        return first_free(lambda new: self._root.rename_folder(old, new), name, folder=True)

    def _directory(self, parts: tuple[str, ...]) -> Directory:
        """The folder of `parts`; it stays open until another is asked for."""
        if not parts:
            return self._root
        stage = self._stages.get(parts[0])
        if stage is None:
            raise UsageError("that folder was not made")
        return self._staged.enter(stage.within(parts))

    def _is_merged(self, parts: tuple[str, ...]) -> bool:
        return len(parts) > 1 and self._stages[parts[0]].merged

    def _leave(self) -> None:
        self._staged.leave()
        self._there.leave()

    def _forget_stages(self) -> None:
        for stage in self._stages.values():
            stage.lock.close()
        self._stages.clear()


def _built(file: IncomingFile, proof: Proof, source: int = -1) -> IncomingFile:
    try:
        file.build_on(proof, source)
    except BaseException:
        file.suspend()
        raise
    return file
