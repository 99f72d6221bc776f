from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_stack.ports import LOOPBACK, NoFreePortError, free_port, free_ports, is_free, without_proxy


@settings(max_examples=10, deadline=None)
@given(count=st.integers(min_value=0, max_value=60))
def test_many_ports_are_distinct_and_each_can_be_bound(count: int) -> None:
    ports = free_ports(count)

    assert len(set(ports)) == count
    assert all(is_free(port) for port in ports)


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    """And twice 10,000 above them is still a port, for servers that derive a second one."""
    assert all(1024 < port < 32768 for port in free_ports(50))


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    port = free_port()
    with socket.create_server((LOOPBACK, port)):
        assert not is_free(port)
    assert is_free(port)


def test_more_ports_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_stack.ports._LOWEST", 20000)
    monkeypatch.setattr("local_stack.ports._HIGHEST", 20001)

    with pytest.raises(NoFreePortError, match=r"of 3 free ports"):
        free_ports(3)


def test_hosts_that_need_no_proxy_are_added_to_those_that_are_named() -> None:
    assert without_proxy({"NO_PROXY": "intern.example,localhost"}) == {
        "NO_PROXY": "127.0.0.1,intern.example,localhost",
        "no_proxy": "127.0.0.1,intern.example,localhost",
    }
