"""Pairs of libnice agents in one process of the system's Python: what `bench/ice.py` measures of them.

Arguments: `connect`: for each line that comes, connect a pair over loopback, and print the milliseconds from
telling both of each other to both having nominated. `idle COUNT`: print the resident bytes, connect that many
pairs, print them again, and stay until standard input ends.
"""

import ctypes
import gc
import resource
import sys
import time
from pathlib import Path

import gi

gi.require_version("Nice", "0.1")
from gi.repository import GLib, Nice  # noqa: E402 - the version comes first

COMPONENT = 1
PATIENCE = 10.0  # seconds for one pair
# The bindings leave out the function that makes libnice read its sockets, so it is called by its C name.
ON_DATA = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p
)
library = ctypes.CDLL("libnice.so.10")
context = GLib.MainContext.default()
ignore = ON_DATA(lambda *_: None)


def gathered(controlling):
    """An agent with one host candidate on loopback, and its stream."""
    agent = Nice.Agent.new(context, Nice.Compatibility.RFC5245)
    agent.set_property("upnp", False)
    agent.set_property("ice-tcp", False)
    agent.set_property("controlling-mode", controlling)
    stream = agent.add_stream(COMPONENT)
    loopback = Nice.Address.new()
    loopback.set_from_string("127.0.0.1")
    agent.add_local_address(loopback)
    # PyGObject's hash of an object is its address.
    library.nice_agent_attach_recv(ctypes.c_void_p(hash(agent)), stream, COMPONENT, None, ignore, None)
    done = []
    agent.connect("candidate-gathering-done", lambda *_: done.append(True))
    agent.gather_candidates(stream)
    while not done:
        context.iteration(True)
    return agent, stream


def connect():
    """Two connected agents, and the milliseconds that it took."""
    pair = [gathered(True), gathered(False)]
    nominated = []
    for agent, _ in pair:
        agent.connect("new-selected-pair-full", lambda agent, *_: nominated.append(hash(agent)))
    told = [
        (agent.get_local_credentials(stream)[1:], agent.get_local_candidates(stream, COMPONENT))
        for agent, stream in pair
    ]
    start = time.perf_counter()
    for (agent, stream), ((ufrag, pwd), candidates) in zip(pair, reversed(told), strict=True):
        agent.set_remote_credentials(stream, ufrag, pwd)
        agent.set_remote_candidates(stream, COMPONENT, candidates)
    while len(set(nominated)) < len(pair):
        context.iteration(True)
        assert time.perf_counter() < start + PATIENCE, "libnice did not connect"
    return pair, (time.perf_counter() - start) * 1000


def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main():
    if sys.argv[1] == "connect":
        for _ in sys.stdin:
            print(connect()[1], flush=True)
        return
    connect()
    print(resident(), flush=True)
    pairs = [connect()[0] for _ in range(int(sys.argv[2]))]
    print(resident(), flush=True)
    loop = GLib.MainLoop()
    either = GLib.IOCondition.HUP | GLib.IOCondition.IN
    GLib.io_add_watch(0, GLib.PRIORITY_DEFAULT, either, lambda *_: loop.quit())
    loop.run()
    assert pairs


if __name__ == "__main__":
    main()
