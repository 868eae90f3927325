"""A data channel with Chromium: its ICE with ours, and above ours the DTLS and SCTP of aiortc."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from chromium import chromium
from crowline.ice.events import PairNominated, Restarted
from crowline.ice.pair import ValidPair
from needs import missing
from our_ice import OurIce, our_ice
from turn_login import account

try:
    import aiortc
    from aiortc.rtcdtlstransport import RTCCertificate
except ImportError:
    aiortc = None  # type: ignore[assignment]

pytestmark = [pytest.mark.peer, pytest.mark.timeout(180)]

PATIENCE = 80.0  # seconds: a browser on a busy machine takes some to start
SCTP_PORT = 5000
# By default a page's host candidates have names that only multicast DNS resolves.
SHOWN = "--disable-features=WebRtcHideLocalIpsWithMdns"
# Our TURN server relays to nothing on its own host but what it relays itself: our agent has another address.
OURS = "127.0.0.2"
MESSAGE = bytes(range(256)) * 64

# Whoever does not offer waits for the other side's offer; both tell their candidates in the description. The
# page echoes what comes, and reports its own view of the connection once it was told `done`.
PAGE = """<!doctype html><meta charset="utf-8"><title>data channel</title><script>
const post = async (path, body) =>
    (await fetch(path, {method: "POST", body: JSON.stringify(body)})).json();
const gathered = async (pc) => {
    while (pc.iceGatheringState !== "complete") await new Promise((done) => setTimeout(done, 10));
    return pc.localDescription.sdp;
};
const report = async (pc) => {
    const found = {};
    (await pc.getStats()).forEach((each) => { found[each.id] = each; });
    await post("/report", found);
};
const restart = async (pc) => {
    pc.restartIce();
    await pc.setLocalDescription();
    const sdp = await post("/restart", await gathered(pc));
    await pc.setRemoteDescription({type: "answer", sdp});
};
const begin = async () => {
    const pc = new RTCPeerConnection(SETTINGS);
    const channel = pc.createDataChannel("data", {negotiated: true, id: 0});
    channel.binaryType = "arraybuffer";
    channel.onmessage = (event) => {
        if (event.data === "done") report(pc);
        else if (event.data === "restart") restart(pc).catch((error) => post("/failed", String(error)));
        else channel.send(event.data);
    };
    if (OFFERS) {
        await pc.setLocalDescription();
        const sdp = await post("/offer", await gathered(pc));
        await pc.setRemoteDescription({type: "answer", sdp});
    } else {
        const sdp = await post("/start", null);
        await pc.setRemoteDescription({type: "offer", sdp});
        await pc.setLocalDescription();
        await post("/answer", await gathered(pc));
    }
};
begin().catch((error) => post("/failed", String(error)));
</script>"""


class IceOfAiortc:
    """What aiortc's DTLS asks of an ICE transport: our connection in its clothes."""

    state = "completed"

    def __init__(self, ours: OurIce, controlling: bool) -> None:
        self._ours = ours
        self.role = "controlling" if controlling else "controlled"

    async def _recv(self) -> bytes:
        return await self._ours.data.get()

    async def _send(self, data: bytes) -> None:
        self._ours.connection.send(data)


class Call:
    """Our end: it answers what the page posts."""

    def __init__(self, ours: OurIce, *, they_offer: bool) -> None:
        self.ours = ours
        self.they_offer = they_offer
        self.dtls = aiortc.RTCDtlsTransport(
            IceOfAiortc(ours, not they_offer), [RTCCertificate.generateCertificate()]
        )
        self.sctp = aiortc.RTCSctpTransport(self.dtls, SCTP_PORT)
        self.channel = aiortc.RTCDataChannel(
            self.sctp, aiortc.RTCDataChannelParameters(label="data", negotiated=True, id=0)
        )
        self.opened = asyncio.Event()
        self.echoes: asyncio.Queue[bytes] = asyncio.Queue()
        self.channel.on("open", self.opened.set)
        self.channel.on("message", self.echoes.put_nowait)
        self.theirs: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self.reports: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def answer(self, path: str, body: Any) -> Any:
        """What the page's requests get."""
        if path == "/failed" and not self.theirs.done():
            self.theirs.set_exception(AssertionError(body))
        elif path in ("/offer", "/answer"):
            self.theirs.set_result(body.splitlines())
        elif path == "/restart":
            self.ours.lines.clear()
            for line in body.splitlines():
                self.ours.connection.hear(line)
            await self.ours.connection.gather()
        elif path == "/report":
            self.reports.put_nowait(body)
        return self.description() if path in ("/offer", "/start", "/restart") else None

    def description(self) -> str:
        """Ours, as RFC 8841 has it; `setup` says that the side which answers is the DTLS client."""
        fingerprint = self.dtls.getLocalParameters().fingerprints[0]
        lines = [
            "v=0", f"o=- 1 1 IN IP4 {OURS}", "s=-", "t=0 0", "a=group:BUNDLE 0",
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", f"c=IN IP4 {OURS}", "a=mid:0",
            f"a=sctp-port:{SCTP_PORT}", f"a=setup:{'active' if self.they_offer else 'actpass'}",
            f"a=fingerprint:{fingerprint.algorithm} {fingerprint.value}",
            *(f"a={line}" for line in self.ours.lines),
        ]  # fmt: skip
        return "".join(f"{line}\r\n" for line in lines)

    async def connect(self) -> ValidPair:
        """Hear their description, and open the channel."""
        lines = await self.theirs
        for line in lines:
            self.ours.connection.hear(line)
        pair = await self.ours.connection.connected()
        fingerprint = next(line for line in lines if line.startswith("a=fingerprint:"))
        algorithm, _, value = fingerprint.removeprefix("a=fingerprint:").partition(" ")
        self.dtls._set_role("client" if self.they_offer else "server")
        await self.dtls.start(
            aiortc.RTCDtlsParameters([aiortc.RTCDtlsFingerprint(algorithm=algorithm, value=value)])
        )
        assert self.dtls.state == "connected"
        await self.sctp.start(aiortc.RTCSctpCapabilities(maxMessageSize=65536), SCTP_PORT)
        await self.opened.wait()
        return pair

    async def close(self) -> None:
        await self.sctp.stop()
        await self.dtls.stop()


@asynccontextmanager
async def call(
    folder: Path, *flags: str, they_offer: bool, settings: str = "{}", **options: Any
) -> AsyncIterator[Call]:
    if aiortc is None:
        missing("aiortc is not installed")
    page = PAGE.replace("OFFERS", str(they_offer).lower()).replace("SETTINGS", settings)
    async with our_ice(controlling=not they_offer, address=OURS, **options) as ours:
        ours.connection.add_socket(ours.own.local)
        await ours.connection.gather()
        both = Call(ours, they_offer=they_offer)
        async with asyncio.timeout(PATIENCE), chromium(folder, page, both.answer, *flags):
            try:
                yield both
            finally:
                await both.close()


View: TypeAlias = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


async def exchange(both: Call) -> View:
    """Data there and back; then its transport and the two selected candidates, as Chromium sees them.

    It says so when its nomination has been answered: its data does not wait for that.
    """
    while True:
        for _ in range(8):
            both.channel.send(MESSAGE)
            assert hashlib.sha256(await both.echoes.get()).digest() == hashlib.sha256(MESSAGE).digest()
        both.channel.send("done")
        stats = await both.reports.get()
        transport = next(each for each in stats.values() if each["type"] == "transport")
        assert transport["iceState"] in ("connected", "completed") and transport["dtlsState"] == "connected"
        pair = stats[transport["selectedCandidatePairId"]]
        if pair["state"] == "succeeded" and pair["nominated"]:
            return transport, stats[pair["localCandidateId"]], stats[pair["remoteCandidateId"]]


@pytest.mark.parametrize("they_offer", [True, False], ids=["chromium-controls", "we-control"])
@pytest.mark.parametrize("is_hidden", [True, False], ids=["mdns-names", "addresses"])
async def test_a_data_channel(tmp_path: Path, they_offer: bool, is_hidden: bool) -> None:
    """Its ICE and ours agree on a pair in both roles, whether it tells its addresses or hides them."""
    flags = () if is_hidden else (SHOWN,)
    async with call(tmp_path, *flags, they_offer=they_offer) as both:
        pair = await both.connect()
        transport, _, remote = await exchange(both)
        assert pair.kind == "lan"
        assert transport["iceRole"] == ("controlling" if they_offer else "controlled")
        own = both.ours.own.local
        assert (remote["address"], remote["port"]) == (own.host, own.port)
        told = [line for line in both.theirs.result() if line.startswith("a=candidate:")]
        assert told and all((".local " in line) is is_hidden for line in told)


async def test_a_restart_of_theirs(tmp_path: Path) -> None:
    """Data goes on under the old credentials, and by the new session's pair when that is agreed on."""
    async with call(tmp_path, they_offer=True) as both:
        await both.connect()
        before = both.ours.lines[0]
        both.channel.send("restart")
        while len(both.ours.of(PairNominated)) < 2:
            both.channel.send(MESSAGE)
            assert await both.echoes.get() == MESSAGE
        transport, _, _ = await exchange(both)
        assert [event.by_peer for event in both.ours.of(Restarted)] == [True]
        assert both.ours.lines[0] != before
        description = "".join(both.theirs.result())
        assert f"a=ice-ufrag:{transport['iceLocalUsernameFragment']}" not in description


@pytest.mark.parametrize("they_offer", [True, False], ids=["chromium-offers", "we-offer"])
async def test_a_data_channel_to_a_lite_agent_of_ours(tmp_path: Path, they_offer: bool) -> None:
    """Chromium controls, whoever offers (RFC 8445 §6.1.1), and nominates."""
    async with call(tmp_path, they_offer=they_offer, lite=True) as both:
        await both.connect()
        transport, _, _ = await exchange(both)
        assert transport["iceRole"] == "controlling"


@pytest.mark.parametrize("server", ["ours", "coturn"])
async def test_a_data_channel_through_a_relay(tmp_path: Path, server: str) -> None:
    """Chromium allocates at our server as at coturn, and is reached there."""
    async with account(server, tmp_path) as turn:
        settings = {
            "iceTransportPolicy": "relay",
            "iceServers": [
                {
                    "urls": f"turn:{turn.address.host}:{turn.address.port}?transport=udp",
                    "username": turn.username,
                    "credential": turn.password,
                }
            ],
        }
        async with call(tmp_path, they_offer=True, settings=json.dumps(settings)) as both:
            pair = await both.connect()
            _, local, _ = await exchange(both)
            assert pair.kind == "relay" and local["candidateType"] == "relay"
