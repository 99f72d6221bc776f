"""Runs a step of a benchmark in a new process, as Airflow runs a task in one of its own."""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Thread
from typing import Self, TypeVar

import psutil

Answer = TypeVar("Answer")

_SECONDS_BETWEEN_LOOKS = 0.1


def in_new_process(step: Callable[..., Answer], *arguments: object) -> Answer:
    """Return what a step returns; it and its arguments have to be ones that another process can be sent.

    :raises EOFError: when the step fails; its process has printed why.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, step, arguments))
    process.start()
    sender.close()
    try:
        answer: Answer = receiver.recv()
    finally:
        process.join()
    return answer


def _answer(sender: Connection, step: Callable[..., object], arguments: tuple[object, ...]) -> None:
    sender.send(step(*arguments))


def own_cpu_seconds() -> float:
    """Return the processor time of this process so far, and of those that it has started and that have ended."""
    return sum(os.times()[:4])


def peak_mebibytes() -> float:
    """Return the most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class ChildrenWatch:
    """Looks at the processes that this one has started, as a context manager, as long as it is in it.

    What the system keeps of a process that has ended is of no use: it counts this one's memory as the child's.
    """

    def __init__(self) -> None:
        self._peaks: dict[int, float] = {}
        self._ended = Event()
        self._thread = Thread(target=self._look, daemon=True)

    @property
    def peak_mebibytes(self) -> float:
        """Return the sum of the most memory that each of them has had."""
        return sum(self._peaks.values())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            for child in psutil.Process().children():
                with suppress(OSError, IndexError):
                    status = Path(f"/proc/{child.pid}/status").read_text()
                    self._peaks[child.pid] = int(status.split("VmHWM:")[1].split()[0]) / 1024
