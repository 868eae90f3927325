"""An open folder, and what may be done to the names in it without ever leaving it.

Where the system has them, everything goes through a descriptor of the folder, so that nobody can swap a
part of the path for a symbolic link between a check and its use. Elsewhere (Windows) paths are used, and
each folder is looked at before it is entered.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BASIC = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _BASIC
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BASIC

_OLD_FILE = _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0) | _BASIC

_RENAME_NOREPLACE = 1  # linux/fs.h

# A file system without hard links says one of these.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EINVAL}

HAS_DIR_FD = (
    os.name == "posix" and {os.open, os.mkdir, os.rename, os.unlink, os.rmdir, os.stat} <= os.supports_dir_fd
)


def _find_renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """The C library's renameat2(2), which macOS and old systems do not have."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    function.restype = ctypes.c_int
    found: Callable[[int, bytes, int, bytes, int], int] = function
    return found


_renameat2 = _find_renameat2()


def claim(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed: False if somebody else has. A system without such locks
    says yes."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems have no locks.
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


@contextlib.contextmanager
def claimed_still(descriptor: int) -> Iterator[None]:
    """Keeps the lock of an open file, also when the descriptor is closed meanwhile. May raise `OSError`."""
    # Windows has no such locks, and renames no file that is open.
    other = os.dup(descriptor) if os.name == "posix" else -1
    try:
        yield
    finally:
        if other >= 0:
            os.close(other)


class Directory:
    """An open folder. Every method may raise `OSError`; names are single components, trusted to be so."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path, *, by_descriptor: bool = HAS_DIR_FD) -> Directory:
        """The folder at `path`, which the user of this machine chose: its links are followed."""
        path = path.resolve(strict=True)
        if by_descriptor:
            return cls(path, os.open(path, _FOLDER))
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return cls(path, None)

    def duplicate(self) -> Directory:
        """The same folder, to be closed on its own."""
        return Directory(self.path, None if self._descriptor is None else os.dup(self._descriptor))

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def open_folder(self, name: str) -> Directory:
        """The folder `name` in this one. A symbolic link in its place is an error."""
        path = self.path / name
        if self._descriptor is not None:
            return Directory(path, os.open(name, _FOLDER | _NO_FOLLOW, dir_fd=self._descriptor))
        # `self.path` was free of links when the target was opened; a junction is a folder to `lstat`.
        if not stat.S_ISDIR(path.lstat().st_mode) or path.resolve() != path:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return Directory(path, None)

    def make_folder(self, name: str) -> None:
        """A new folder for its owner only. `FileExistsError` if the name is taken, by whatever it is."""
        os.mkdir(self._at(name), 0o700, dir_fd=self._descriptor)

    def create_file(self, name: str) -> int:
        """The descriptor of a new file for its owner only. `FileExistsError` if the name is taken."""
        return os.open(self._at(name), _NEW_FILE, 0o600, dir_fd=self._descriptor)

    def open_file(self, name: str, *, writable: bool = False) -> int:
        """The descriptor of what has this name. A link in its place is an error, a pipe is not waited for.

        It may be anything but a link: look at it before it is used.
        """
        flags = _OLD_FILE | (os.O_RDWR if writable else os.O_RDONLY)
        if not _NO_FOLLOW and stat.S_ISLNK(self.status(name).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.open(self._at(name), flags, dir_fd=self._descriptor)

    def names(self) -> list[str]:
        """Of everything in this folder."""
        with os.scandir(self.path if self._descriptor is None else self._descriptor) as entries:
            return [entry.name for entry in entries]

    def lock(self) -> bool:
        """Claim the folder for as long as it is open here: False if somebody else has."""
        return self._descriptor is None or claim(self._descriptor)

    def own_status(self) -> os.stat_result:
        """Of the folder itself."""
        return self.path.stat() if self._descriptor is None else os.fstat(self._descriptor)

    def make_link(self, name: str, target: str) -> None:
        """A symbolic link. `FileExistsError` if the name is taken, by whatever it is."""
        os.symlink(target, self._at(name), dir_fd=self._descriptor)

    def link_target(self, name: str) -> str | None:
        """What the symbolic link `name` points to; ``None`` if it is not one."""
        try:
            return os.readlink(self._at(name), dir_fd=self._descriptor)
        except OSError:
            return None

    def remove_file(self, name: str) -> None:
        os.unlink(self._at(name), dir_fd=self._descriptor)

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""
        os.rmdir(self._at(name), dir_fd=self._descriptor)

    def status(self, name: str) -> os.stat_result:
        """Of what has this name, and not of what it may link to."""
        return os.stat(self._at(name), dir_fd=self._descriptor, follow_symlinks=False)

    def set_mode(self, mode: int) -> None:
        if self._descriptor is not None:
            os.fchmod(self._descriptor, mode)
        else:
            self.path.chmod(mode)

    def space(self) -> tuple[int, int]:
        """Bytes that this user may still write here, and bytes of the whole file system."""
        if self._descriptor is not None:
            status = os.fstatvfs(self._descriptor)
            return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
        usage = shutil.disk_usage(self.path)
        return usage.free, usage.total

    def rename_file(self, old: str, new: str) -> None:
        """Give a file a name that must be free: `FileExistsError` if it is not; nothing is ever replaced."""
        if self._rename_if_free(old, new):
            return
        if self._link(old, new):
            self.remove_file(old)
            return
        # Without links, an empty file of ours holds the name until it is replaced.
        os.close(self.create_file(new))
        try:
            self._rename(old, new)
        except OSError:
            self.remove_file(new)
            raise

    def replace_file(self, old: str, new: str) -> None:
        """Give a file a name, whatever file has it."""
        os.replace(self._at(old), self._at(new), src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def rename_folder(self, old: str, new: str) -> None:
        """Give a folder a name that must be free: `FileExistsError` if it is not."""
        if self._rename_if_free(old, new):
            return
        # POSIX lets a folder replace an empty one, so an empty one of ours holds the name.
        self.make_folder(new)
        try:
            self._rename(old, new)
        except OSError:
            self.remove_folder(new)
            raise

    def _rename_if_free(self, old: str, new: str) -> bool:
        """Rename in one step that cannot replace anything; False where the system has no such step."""
        if os.name == "nt":
            self._rename(old, new)  # Windows refuses to replace.
            return True
        if _renameat2 is None or self._descriptor is None:
            return False
        if not _renameat2(
            self._descriptor, os.fsencode(old), self._descriptor, os.fsencode(new), _RENAME_NOREPLACE
        ):
            return True
        number = ctypes.get_errno()
        if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            return False
        raise OSError(number, os.strerror(number))

    def _link(self, old: str, new: str) -> bool:
        """A second name for a file; False where the file system has no such thing."""
        try:
            os.link(
                self._at(old),
                self._at(new),
                src_dir_fd=self._descriptor,
                dst_dir_fd=self._descriptor,
                follow_symlinks=os.link not in os.supports_follow_symlinks,
            )
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return False
        return True

    def _rename(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new), src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def _at(self, name: str) -> str:
        return name if self._descriptor is not None else str(self.path / name)
