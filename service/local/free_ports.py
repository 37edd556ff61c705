"""Ports that are free now on this machine."""

import random
import socket

from prunus.cluster.embedded_ray import LOOPBACK, RayPorts
from prunus.service.errors import StartFailed

_DASHBOARD = 8265
"""Ray's own choice; another where it is taken."""

_PORT_RANGE = (20_000, 32_000)

_RANDOM = random.SystemRandom()


def pick_port(preferred: int | None = None) -> int:
    """Return a port that is free now on loopback: ``preferred`` if it is, else a random one.

    The random ones lie below the range that the kernel gives to outgoing connections and to programs that ask for
    port 0, so that none of those takes it before it is used.

    Raises:
        StartFailed: None is free.
    """
    for port in (preferred, *_RANDOM.sample(range(*_PORT_RANGE), 200)):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise StartFailed("no free port on 127.0.0.1; end something that listens there")


def pick_ports() -> RayPorts:
    """Choose ports for a head."""
    return RayPorts(dashboard=pick_port(_DASHBOARD), gcs=pick_port(), client=pick_port(), agent=pick_port())
