"""Runs a step of a benchmark in a new process, as Airflow runs a task in one of its own."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

Answer = TypeVar("Answer")


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


def peak_mebibytes() -> float:
    """Return the most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
