"""Files to one receiver, from the code to the summary."""

from __future__ import annotations

from crowline.api import transfer
from crowline.api.transfer import Prepared, Summary
from crowline.cli.output import Output
from crowline.cli.reunion import Reunion
from crowline.cli.screen import Screen
from crowline.cli.view import TransferView, show_done


class Sending:
    """One receiver's part of a command; several of them may share what is `prepared`, and the screen."""

    def __init__(
        self, output: Output, reunion: Reunion, prepared: Prepared, screen: Screen | None = None
    ) -> None:
        self._output = output
        self._reunion = reunion
        self._prepared = prepared
        self._screen = screen or Screen()

    async def run(self) -> Summary:
        """Until the other side has everything. Raises what `transfer.send` and `Room.peer` do."""
        return await self._reunion.until_done(self._once)

    async def _once(self) -> Summary:
        view = TransferView(self._output, self._prepared.manifest.total, self._screen)
        async with self._reunion.peer(view) as peer:
            stream = await peer.open_stream()
            with view:
                summary = await transfer.send(stream, self._prepared, on_event=view.on_event)
            show_done(self._output, summary, peer)
            return summary
