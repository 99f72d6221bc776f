"""Lets an answer fail on the wire: the connection closed or reset instead of a response."""

from __future__ import annotations

import asyncio
import socket
import struct

from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_TRANSPORT = "bedrock_simulator.transport"


class BreakableProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also hands its transport to the application."""

    def on_message_begin(self) -> None:
        """Put the transport into the request's scope."""
        super().on_message_begin()
        scope: Scope = self.scope  # type: ignore[assignment]
        scope["extensions"] = {_TRANSPORT: {"transport": self.transport}}


class NoResponse:
    """An ASGI application that ends the connection without a response, by a reset (RST) or by closing it (FIN)."""

    def __init__(self, request: Request, *, reset: bool) -> None:
        self._transport: asyncio.Transport = request.scope["extensions"][_TRANSPORT]["transport"]
        self._reset = reset

    async def __call__(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        """End the connection and wait until uvicorn knows."""
        if self._reset:
            connection: socket.socket = self._transport.get_extra_info("socket")
            # Closing with a linger time of zero sends a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        while (await receive())["type"] != "http.disconnect":
            continue
