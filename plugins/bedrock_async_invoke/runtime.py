"""InvokeModel as coroutines call it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Protocol, Self

from bedrock_async_invoke.errors import explain
from bedrock_async_invoke.hooks import BedrockAsyncInvokeHook

_JSON = "application/json"


class Runtime(Protocol):
    """What sends requests through InvokeModel."""

    async def invoke_model(self, model_id: str, body: bytes) -> bytes:
        """Return the model's answer as it came.

        :raises AsyncInvokeError: for any other ending.
        """

    async def renew(self) -> None:
        """Take up new credentials."""


class BedrockRuntime:
    """InvokeModel through the provider's hook; to be entered as a context.

    :param at_once: how many calls it has to be able to make side by side.
    :param call_seconds: the most that a call takes, from its beginning to the last byte of its answer.
    """

    def __init__(self, hook: BedrockAsyncInvokeHook, *, at_once: int, call_seconds: float) -> None:
        self._hook = hook
        self._at_once = at_once
        self._call_seconds = call_seconds
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def __aenter__(self) -> Self:
        await self.renew()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def renew(self) -> None:
        """Make the client anew; calls under way go on with the one that they began with."""
        client = await asyncio.to_thread(
            self._hook.invoke_model_client, at_once=self._at_once, read_seconds=self._call_seconds
        )
        self._client = await self._stack.enter_async_context(client)

    async def invoke_model(self, model_id: str, body: bytes) -> bytes:
        """Send a request, in a single attempt, and return the model's answer as it came.

        .. seealso::
            - https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html
        """
        try:
            async with asyncio.timeout(self._call_seconds):
                answer = await self._client.invoke_model(modelId=model_id, body=body, contentType=_JSON, accept=_JSON)
                content: bytes = await answer["body"].read()
        except Exception as error:
            raise explain(error) from error
        return content
