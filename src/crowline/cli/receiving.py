"""What somebody offers, from the meeting to the summary: files into a folder, or a stream."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path as FilePath

from crowline.api import transfer
from crowline.api.flow import FLOW, Sink, StandardStreams, StreamFile, acts_unasked, receive_flow
from crowline.api.peer import Peer, Stream
from crowline.api.transfer import Decision, OfferMade, Summary
from crowline.base.errors import UsageError
from crowline.cli.ask import agree
from crowline.cli.output import Output, printable, size
from crowline.cli.reunion import Reunion
from crowline.cli.view import TransferView, show_done

# Names of an offer that are shown before "and N more".
_NAMES_SHOWN = 5
_DECLINED = "the other person said no"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person said beforehand. Without a `folder`, standard output takes a stream."""

    folder: FilePath | None
    yes: bool
    take_dotfiles: bool
    merge: bool = False


class Receiving:
    """One command's part: whatever comes is shown, asked about and taken."""

    def __init__(self, output: Output, reunion: Reunion, wishes: Wishes) -> None:
        self._output = output
        self._reunion = reunion
        self._wishes = wishes
        # What the person has agreed to take, so that it is not asked again after a break.
        self._agreed: object = None
        self._view = TransferView(output, total=0)
        # Where a stream goes that is saved.
        self._file: StreamFile | None = None

    async def run(self) -> None:
        """Until everything is here, or nobody wants it. Raises what `receive_into` and `Room.peer` do."""
        await self._reunion.until_done(self._once)

    async def take(self, name: str) -> Sink | str:
        """Where a stream of that name goes, or why nowhere."""
        self._output.emit("offer", files=1, folders=0, bytes=None, names=[name])
        self._output.say(f"Offered: {printable(name)}, as long as it comes")
        if self._wishes.folder is None:
            return self._begin(StandardStreams(takes_input=False), None)
        if acts_unasked(name) and not self._wishes.take_dotfiles:
            self._output.warn(f"{name} is not taken: programs obey a file of that name unasked.")
            return "it takes no file that programs obey unasked"
        if not await self._agrees(name, self._wishes.folder):
            return _DECLINED
        self._file = await StreamFile.create(self._wishes.folder, name)
        return self._begin(self._file, None)

    async def _once(self) -> None:
        self._view = TransferView(self._output, total=0)
        async with self._reunion.peer(self._view) as peer:
            stream = await peer.accept_stream()
            line = await stream.readline()
            try:
                if line == FLOW.line:
                    await self._receive_stream(stream, peer)
                else:
                    await self._receive_files(stream, line, peer)
            finally:
                self._view.__exit__(None, None, None)

    async def _receive_files(self, stream: Stream, line: bytes, peer: Peer) -> None:
        folder = self._wishes.folder or FilePath()
        summary = await transfer.receive_into(
            stream, folder, decide=self._decide, on_event=self._view.on_event, begun=line
        )
        self._view.__exit__(None, None, None)
        if self._wishes.folder is None:
            raise UsageError("The other side sends files, not a stream.", hint="Leave out --out -.")
        self._finish(summary, peer)
        if not summary.declined:
            self._output.say(f"Saved in {folder}: {printable(', '.join(summary.saved[:_NAMES_SHOWN]))}")

    async def _receive_stream(self, stream: Stream, peer: Peer) -> None:
        self._reunion.forget()
        summary = await receive_flow(stream, take=self.take, on_event=self._view.on_event)
        self._view.__exit__(None, None, None)
        if self._file is not None and self._file.name != self._file.wanted:
            self._output.warn(f"{self._file.wanted} was there already: saved as {self._file.name}.")
        self._finish(summary, peer)
        if self._file is not None:
            self._output.say(f"Saved in {self._wishes.folder}: {self._file.name}")

    def _finish(self, summary: Summary, peer: Peer) -> None:
        if summary.declined:
            self._output.say("Nothing was saved.")
        else:
            show_done(self._output, summary, peer)

    def _begin(self, sink: Sink, total: int | None) -> Sink:
        self._view.total = total
        self._view.__enter__()
        return sink

    async def _decide(self, offer: OfferMade) -> Decision:
        manifest = offer.manifest
        items = manifest.items()
        self._output.emit(
            "offer",
            files=len(manifest.files),
            folders=len(manifest.folders),
            bytes=manifest.total,
            names=[item.name for item in items],
        )
        shown = [
            f"{item.name}{'/' if item.is_folder else ''} ({size(item.size)})" for item in items[:_NAMES_SHOWN]
        ]
        more = f" and {len(items) - _NAMES_SHOWN} more" if len(items) > _NAMES_SHOWN else ""
        self._output.say(f"Offered: {printable(', '.join(shown))}{more}")
        if self._wishes.folder is None:
            return Decision(False, reason="it takes a stream, not files")
        if not await self._agrees(manifest, self._wishes.folder):
            return Decision(False, reason=_DECLINED)
        self._view.total = manifest.total
        self._view.__enter__()
        return Decision(True, take_unasked=self._wishes.take_dotfiles, merge=self._wishes.merge)

    async def _agrees(self, offered: object, folder: FilePath) -> bool:
        if self._wishes.yes or offered == self._agreed:
            return True
        self._view.quiet = True
        free = size(shutil.disk_usage(folder).free)
        agrees = await agree(f"Save in {folder}? Free: {free}.")
        self._view.quiet = False
        self._agreed = offered if agrees else None
        return agrees
