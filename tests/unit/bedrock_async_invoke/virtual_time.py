"""An event loop whose time goes on only when everything waits: what takes hours takes no time, and happens in one order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from tests.unit.bedrock_async_invoke.fake_aws import Clock


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None):
        assert timeout is not None, "everything waits for what never comes"
        self._clock.now += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: Clock) -> None:
        super().__init__(_Selector(clock))
        self._virtual_clock = clock
        # What is due at this very moment is due; at so many seconds since the epoch a nanosecond is nothing.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._virtual_clock.now

    def set_default_executor(self, executor: Any) -> None:
        """Have no threads: they would need real time."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the base's
        """Have none to shut down."""


def run(clock: Clock, coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(coroutine)


_DEAD: list[Any] = []


def run_until_killed(clock: Clock, coroutine: Coroutine[Any, Any, Any], is_due: Callable[[], bool]) -> None:
    """Run until that is due, and then leave everything as it is, as if the process were gone."""
    loop = VirtualLoop(clock)

    async def watched() -> None:
        task = asyncio.ensure_future(coroutine)
        while not is_due() and not task.done():  # noqa: ASYNC110 - nobody tells when it is
            await asyncio.sleep(0.2)

    loop.run_until_complete(watched())
    # Kept, so that nothing of them is tidied up, which may do something.
    _DEAD.append((loop, asyncio.all_tasks(loop)))


async def at_once(call, *arguments, **named):
    """Stand in for ``asyncio.to_thread``: the call takes no time."""
    await asyncio.sleep(0)
    return call(*arguments, **named)
