"""Goes down from one folder to others, never by a link."""

from __future__ import annotations

from crowline.net.directory import Directory


class FolderWalk:
    """Opens folders below `root` one by one; the last one stays open until another is asked for."""

    def __init__(self, root: Directory) -> None:
        self._root = root
        self._near: tuple[tuple[str, ...], Directory] | None = None

    def enter(self, parts: tuple[str, ...]) -> Directory:
        """The folder of `parts`; it is closed by the next call. May raise `OSError`."""
        if not parts:
            return self._root
        if self._near is not None and self._near[0] == parts:
            return self._near[1]
        self.leave()
        current = self._root
        for name in parts:
            try:
                following = current.open_folder(name)
            finally:
                if current is not self._root:
                    current.close()
            current = following
        self._near = (parts, current)
        return current

    def leave(self) -> None:
        if self._near is not None:
            self._near[1].close()
            self._near = None
