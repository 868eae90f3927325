"""A libnice agent as a process: its description on standard output, the other side's on standard input.

For the system's Python, which has libnice's bindings. Arguments, all `name=value`: `address` (host address to
gather from, needed), `controlling` (1 or 0), `stun` and `turn` (host:port), `user`, `password`, `relay-only`,
`trickle`, `lite`, `tcp` (in place of UDP), `regular` (nomination), `consent`, `begin` (say `ready`, and
gather when the line `go` has come).

Lines in and out are those of RFC 8839; besides, out: `nominated MS LOCAL REMOTE` (milliseconds since
gathering began; types of the candidates), `state NAME`, `data HEX`; in: `go`, `send HEX`, `restart`, `end`.
"""

import ctypes
import sys
import time

import gi

gi.require_version("Nice", "0.1")
from gi.repository import GLib, Nice  # noqa: E402 - the version comes first

COMPONENT = 1
# The bindings leave out the function that hands over received data, so it is called by its C name.
ON_DATA = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p
)
FLAGS = {
    "lite": Nice.AgentOption.LITE_MODE,
    "trickle": Nice.AgentOption.ICE_TRICKLE,
    "regular": Nice.AgentOption.REGULAR_NOMINATION,
    "consent": Nice.AgentOption.CONSENT_FRESHNESS,
}
library = ctypes.CDLL("libnice.so.10")


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Agent:
    def __init__(self, options):
        self.options = options
        self.loop = GLib.MainLoop()
        flags = Nice.AgentOption(0)
        for name, flag in FLAGS.items():
            if options.get(name) == "1":
                flags |= flag
        self.agent = agent = Nice.Agent.new_full(
            GLib.MainContext.default(), Nice.Compatibility.RFC5245, flags
        )
        agent.set_property("upnp", False)
        agent.set_property("ice-tcp", options.get("tcp") == "1")
        agent.set_property("ice-udp", options.get("tcp") != "1")
        agent.set_property("controlling-mode", options.get("controlling") == "1")
        agent.set_property("force-relay", options.get("relay-only") == "1")
        if "stun" in options:
            host, _, port = options["stun"].rpartition(":")
            agent.set_property("stun-server", host)
            agent.set_property("stun-server-port", int(port))
        self.stream = agent.add_stream(COMPONENT)
        if "turn" in options:
            host, _, port = options["turn"].rpartition(":")
            agent.set_relay_info(
                *(self.stream, COMPONENT, host, int(port)),
                *(options["user"], options["password"], Nice.RelayType.UDP),
            )
        local = Nice.Address.new()
        local.set_from_string(options["address"])
        agent.add_local_address(local)
        agent.connect("new-candidate-full", self.on_candidate)
        agent.connect("candidate-gathering-done", self.on_gathered)
        agent.connect("new-selected-pair-full", self.on_selected)
        agent.connect("component-state-changed", self.on_state)
        self.on_data = ON_DATA(self.on_received)
        # PyGObject's hash of an object is its address.
        pointer = ctypes.c_void_p(hash(agent))
        library.nice_agent_attach_recv(pointer, self.stream, COMPONENT, None, self.on_data, None)
        self.ufrag = self.pwd = ""
        self.has_restarted = False  # and the other side has not answered that yet
        self.pending = b""
        GLib.io_add_watch(0, GLib.PRIORITY_DEFAULT, GLib.IOCondition.IN | GLib.IOCondition.HUP, self.on_input)
        if options.get("begin") == "1":
            say("ready")
        else:
            self.begin()

    def begin(self):
        self.began = time.monotonic()
        self.introduce()
        self.agent.gather_candidates(self.stream)

    def restart(self):
        self.agent.restart_stream(self.stream)
        self.introduce()
        self.tell_all()
        say("end-of-candidates")

    def introduce(self):
        _, ufrag, pwd = self.agent.get_local_credentials(self.stream)
        say(f"ice-ufrag:{ufrag}")
        say(f"ice-pwd:{pwd}")
        if self.options.get("lite") == "1":
            say("ice-lite")

    # What libnice says.

    def on_candidate(self, _agent, candidate):
        if self.options.get("trickle") == "1":
            self.tell(candidate)

    def on_gathered(self, *_):
        if self.options.get("trickle") != "1":
            self.tell_all()
        say("end-of-candidates")

    def tell_all(self):
        for candidate in self.agent.get_local_candidates(self.stream, COMPONENT):
            self.tell(candidate)

    def tell(self, candidate):
        if self.options.get("relay-only") == "1" and candidate.type is not Nice.CandidateType.RELAYED:
            return
        say(self.agent.generate_local_candidate_sdp(candidate).removeprefix("a="))

    def on_selected(self, _agent, _stream, _component, local, remote):
        elapsed = (time.monotonic() - self.began) * 1000
        say(f"nominated {elapsed:.3f} {name_of(local)} {name_of(remote)}")

    def on_state(self, _agent, _stream, _component, state):
        say(f"state {Nice.ComponentState(state).value_nick}")

    def on_received(self, _agent, _stream, _component, size, buffer, _user):
        say(f"data {ctypes.string_at(buffer, size).hex()}")

    # What the other side and the caller say.

    def on_input(self, _source, _condition):
        data = sys.stdin.buffer.raw.read(65536)
        if not data:
            self.loop.quit()
            return False
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            self.hear(line.decode())
        return True

    def hear(self, line):
        name, _, value = line.partition(":")
        if line == "go":
            self.begin()
        elif line == "end":
            self.loop.quit()
        elif line == "restart":
            self.has_restarted = True
            self.restart()
        elif line == "end-of-candidates":
            self.agent.peer_candidate_gathering_done(self.stream)
        elif line.startswith("send "):
            text = bytes.fromhex(line[5:])
            sent = library.nice_agent_send(
                ctypes.c_void_p(hash(self.agent)), self.stream, COMPONENT, len(text), text
            )
            assert sent == len(text), sent
        elif name == "ice-ufrag":
            self.ufrag = value
        elif name == "ice-pwd":
            if self.pwd and not self.has_restarted:
                self.restart()
            self.has_restarted = False
            self.pwd = value
            self.agent.set_remote_credentials(self.stream, self.ufrag, self.pwd)
        elif name == "candidate":
            candidate = self.agent.parse_remote_candidate_sdp(self.stream, "a=" + line)
            self.agent.set_remote_candidates(self.stream, COMPONENT, [candidate])


def name_of(candidate):
    return candidate.type.value_nick


if __name__ == "__main__":
    Agent(dict(argument.split("=", 1) for argument in sys.argv[1:])).loop.run()
