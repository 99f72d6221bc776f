"""Loopback: free ports for servers that are about to be started, and calls that stay on this machine."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"

# Below 32768 and 49152, where Linux and macOS begin to take the ports of outgoing connections: a port from there
# could be taken by a client between the moment it is found free and the moment the server binds it.
_LOWEST, _HIGHEST = 10240, 32767


class NoFreePortError(OSError):
    """So many loopback ports are in use that not enough free ones were found."""


def free_ports(count: int) -> list[int]:
    """Return distinct TCP ports that nobody listens on at 127.0.0.1.

    They are all bound at once while they are looked for, so that no port is returned twice.

    :raises NoFreePortError: if there aren't as many.
    """
    chosen: list[int] = []
    with ExitStack() as bound:
        for port in random.SystemRandom().sample(range(_LOWEST, _HIGHEST + 1), _HIGHEST + 1 - _LOWEST):
            if len(chosen) == count:
                break
            candidate = bound.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            if _bind(candidate, port):
                chosen.append(port)
    if len(chosen) < count:
        raise NoFreePortError(f"only {len(chosen)} of {count} free ports were found on {LOOPBACK}")
    return chosen


def free_port() -> int:
    """Return one TCP port that nobody listens on at 127.0.0.1."""
    return free_ports(1)[0]


def is_free(port: int) -> bool:
    """Say whether a server could bind the port at 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
        return _bind(candidate, port)


def _bind(candidate: socket.socket, port: int) -> bool:
    # As servers do: connections of a server that has just ended must not count as use.
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        candidate.bind((LOOPBACK, port))
    except OSError:
        return False
    return True


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what keeps calls to this machine away from a proxy that the environment names."""
    hosts = {host for name in ("NO_PROXY", "no_proxy") for host in environment.get(name, "").split(",") if host}
    joined = ",".join(sorted({*hosts, LOOPBACK, "localhost"}))
    return {"NO_PROXY": joined, "no_proxy": joined}
