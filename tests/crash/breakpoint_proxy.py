"""A proxy between the processes of the project and the services they call, which can stop the world at a chosen call.

It passes HTTP/1.1 on byte by byte (signatures cover the path and the Host header as they were sent) over a connection of
its own for every request, so that a server which closes idle connections is never met half-closed.

Its event loop runs in a thread of the test; what is done at a breakpoint is done in a thread besides, so that the other
calls go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Self
from urllib.parse import urlsplit

import psutil

from local_stack.ports import LOOPBACK, free_port
from tests.crash.http_messages import BodyEnd, Head, Reader, pass_body, read_head

logger = logging.getLogger(__name__)

_CALLS_REMEMBERED = 300
_GRACE_SECONDS = 0.5


class When(Enum):
    """The moment of a call at which it is stopped."""

    BEFORE = "before it is forwarded"
    AFTER = "after its success was answered, before its caller is told"


class Then(Enum):
    """What becomes of the call that was stopped."""

    DROP = "its connection is cut"
    GO_ON = "it goes on as if nothing had been"


@dataclass(frozen=True)
class Breakpoint:
    """Which call is to be stopped: the ``nth`` that matches all of this.

    :param path: a regular expression that is searched for in the path with its query, as they are sent.
    :param nth: counted from 1. ``AFTER`` counts calls that succeeded (2xx), ``BEFORE`` those that came in.
    :param made_by: tells by the caller's pid whether its calls count; all do without it.
    """

    service: str
    method: str
    path: str
    when: When
    nth: int = 1
    made_by: Callable[[int], bool] | None = None


@dataclass(frozen=True)
class Hit:
    """The call that was stopped; ``pid`` is its caller's, None where that has ended already."""

    service: str
    method: str
    path: str
    pid: int | None


Action = Callable[[Hit], Then]


@dataclass
class Armed:
    """A breakpoint that waits for its call, and what came of it."""

    wanted: Breakpoint
    action: Action
    _done: Future[Hit] = field(default_factory=Future)
    _matches: int = 0

    @property
    def is_hit(self) -> bool:
        """Whether the action was carried out."""
        return self._done.done()

    def wait(self, seconds: float) -> Hit:
        """Return the call as soon as the action was carried out on it.

        :raises TimeoutError: if no call came in time.
        :raises Exception: what the action has raised.
        """
        return self._done.result(seconds)

    def matches(self, service: str, head: Head, pid: Callable[[], int | None]) -> bool:
        """Say whether this is the call that is waited for. Called for every call, once."""
        wanted = self.wanted
        if wanted.service != service or wanted.method != head.method or not re.search(wanted.path, head.path):
            return False
        if wanted.made_by is not None and ((caller := pid()) is None or not wanted.made_by(caller)):
            return False
        self._matches += 1
        return self._matches == wanted.nth

    def carry_out(self, hit: Hit) -> Then:
        """Do what is to be done. An action that fails lets the call go on, and :meth:`wait` raises its error."""
        try:
            then = self.action(hit)
        except BaseException as error:  # noqa: BLE001 - handed on to the thread that waits
            self._done.set_exception(error)
            return Then.GO_ON
        self._done.set_result(hit)
        return then


class BreakpointProxy:
    """Listens on a free port of 127.0.0.1 for each service, and passes every call on.

    :param services: the address of each service, such as ``http://127.0.0.1:8333``, by its name.
    """

    def __init__(self, services: Mapping[str, str]) -> None:
        self._services = {name: urlsplit(url) for name, url in services.items()}
        self._ports = {name: free_port() for name in services}
        self._armed: Armed | None = None
        self._calls: deque[str] = deque(maxlen=_CALLS_REMEMBERED)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="breakpoint-proxy", daemon=True)
        self._servers: list[asyncio.Server] = []

    def url(self, service: str) -> str:
        """Return the address that stands for the service's."""
        return f"http://{LOOPBACK}:{self._ports[service]}"

    @property
    def last_calls(self) -> list[str]:
        """Return the last calls, each as a line, for the message of a test that waited in vain."""
        return list(self._calls)

    def arm(self, wanted: Breakpoint, action: Action) -> Armed:
        """Wait for a call and carry out the action on it, once. One breakpoint is armed at a time."""
        self._calls.clear()
        self._armed = Armed(wanted, action)
        return self._armed

    def disarm(self) -> None:
        """Let every call through from now on."""
        self._armed = None

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *exception: object) -> None:
        """Cut all connections and stop listening."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        for name, port in self._ports.items():

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: str = name) -> None:
                await self._serve(service, reader, writer)

            self._servers.append(await asyncio.start_server(serve, LOOPBACK, port))

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, service: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await read_head(reader)) is not None:
                if not await self._pass_on(service, head, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            # A process that was killed in the middle of a call, most often.
            logger.info("%s: a connection ended: %r", service, error)
        finally:
            writer.close()

    async def _pass_on(
        self, service: str, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Pass a call on, and its answer back; return whether the connection can take another one."""
        port = writer.get_extra_info("peername")[1]
        awaited = self._awaited(service, head, port)
        if awaited is not None and awaited.wanted.when is When.BEFORE:
            self._calls.append(f"{service} {head.method} {head.path} STOPPED")
            if await self._stop(awaited, service, head, port) is Then.DROP:
                writer.transport.abort()
                return False
        address = self._services[service]
        server_reader, server_writer = await asyncio.open_connection(address.hostname, address.port)
        server_writer.write(head.raw)
        body = asyncio.create_task(_pass_body_of_request(head, reader, server_writer))
        try:
            return await self._pass_answer(service, head, port, server_reader, writer, body)
        finally:
            body.cancel()
            await asyncio.gather(body, return_exceptions=True)
            server_writer.transport.abort()

    async def _pass_answer(
        self,
        service: str,
        head: Head,
        port: int,
        server: Reader,
        writer: asyncio.StreamWriter,
        body: asyncio.Task[None],
    ) -> bool:
        answer = await read_head(server)
        while answer is not None and answer.is_interim:
            writer.write(answer.raw)
            answer = await read_head(server)
        if answer is None:
            raise ConnectionResetError(f"{service} gave no answer to {head.method} {head.path}")
        self._calls.append(f"{service} {head.method} {head.path} {answer.status}")
        awaited = self._awaited(service, head, port, answer)
        if awaited is not None and await self._stop(awaited, service, head, port) is Then.DROP:
            writer.transport.abort()
            return False
        writer.write(answer.raw)
        end = BodyEnd.none() if head.method == "HEAD" else answer.body_end
        await pass_body(end, server, writer)
        await writer.drain()
        # Where the server has answered before it was sent everything, the rest would be taken for the next call.
        await asyncio.wait({body}, timeout=_GRACE_SECONDS)
        return body.done() and not head.closes and not answer.closes and not end.is_close

    def _awaited(self, service: str, head: Head, port: int, answer: Head | None = None) -> Armed | None:
        """Return the breakpoint if it is this call that it waits for, now."""
        armed = self._armed
        if armed is None or (armed.wanted.when is When.AFTER) != (answer is not None):
            return None
        if answer is not None and not answer.is_success:
            return None
        return armed if armed.matches(service, head, lambda: self._caller(port, service)) else None

    async def _stop(self, armed: Armed, service: str, head: Head, port: int) -> Then:
        hit = Hit(service, head.method, head.path, self._caller(port, service))
        return await asyncio.to_thread(armed.carry_out, hit)

    def _caller(self, port: int, service: str) -> int | None:
        """Return the pid of the process that holds the other end of a connection."""
        for connection in psutil.net_connections("tcp4"):
            if connection.laddr == (LOOPBACK, port) and connection.raddr == (LOOPBACK, self._ports[service]):
                return connection.pid
        return None


async def _pass_body_of_request(head: Head, reader: Reader, writer: asyncio.StreamWriter) -> None:
    try:
        await pass_body(head.body_end, reader, writer)
    except (ConnectionError, asyncio.IncompleteReadError):
        # The server would wait for the rest of what a killed process was sending.
        writer.transport.abort()
        raise
