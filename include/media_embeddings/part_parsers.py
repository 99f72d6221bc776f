"""Parses parts of outputs: here, or in processes of their own as soon as there is enough to parse."""

from __future__ import annotations

import logging
import mmap
import os
import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Condition, Thread, local
from types import TracebackType
from typing import Self

import simdjson

from media_embeddings.child_processes import bare_environment, command_of, end
from media_embeddings.output_rows import NotAPartError, OutputInvalidError, OutputPart, PartRows, parse_part
from media_embeddings.part_messages import MEMORY_BYTES, TEXT_BYTES, Answer, Request, vectors_in

logger = logging.getLogger(__name__)

Fragments = Sequence[bytes | memoryview]

# Two parse faster than one process receives.
_MOST_PROCESSES = 2
# As much as is parsed in the time that it takes to start them: whatever is still to come, waiting cost no more than that.
_BYTES_BEFORE_PROCESSES = 96 * 1024**2
_SECONDS_TO_END = 1.0
_COMMAND = command_of("media_embeddings.part_parser_process")


class PartParsers:
    """What the threads of a merge parse with. As a context manager it ends its processes when it is left.

    A part is parsed here as long as no process is ready, when its process has died, and where it is longer than
    :data:`~media_embeddings.part_messages.TEXT_BYTES`.

    :param most_processes: how many there may be; by default two, and none where there is a single core.
    :param bytes_before: how much is parsed here before processes are started.
    """

    def __init__(self, most_processes: int | None = None, *, bytes_before: int = _BYTES_BEFORE_PROCESSES) -> None:
        self._most_processes = _default_processes() if most_processes is None else most_processes
        self._bytes_left = bytes_before
        self._changed = Condition()
        self._all: list[_Process] = []
        self._idle: deque[_Process] = deque()
        self.ready = 0
        """How many processes take texts."""
        self._starting: Thread | None = None
        self._is_closed = False
        self._here = local()

    def parse(self, fragments: Fragments, part: OutputPart) -> PartRows:
        """Return the rows of a part whose text is given in fragments.

        :raises OutputInvalidError: as :func:`~media_embeddings.output_rows.parse_part` does.
        :raises NotAPartError: likewise.
        """
        size = sum(map(len, fragments))
        process = self._take() if size <= TEXT_BYTES else None
        if process is None:
            self._count(size)
            return self._parse_here(bytearray().join(fragments), part)
        # Its memory is of no use any more.
        self._here.__dict__.clear()
        try:
            rows = process.parse(fragments, size, part)
        except (OutputInvalidError, NotAPartError):
            self._give_back(process)
            raise
        except (EOFError, OSError) as error:
            self._lose(process, error)
            return self._parse_here(bytearray().join(fragments), part)
        except BaseException as error:
            # Its answer may still come, and would be taken for that of the next part.
            self._lose(process, error)
            raise
        self._give_back(process)
        return rows

    def start(self) -> None:
        """Begin to start the processes, once; :meth:`parse` does so when it has parsed enough."""
        with self._changed:
            if self._starting is not None or self._is_closed or not self._most_processes:
                return
            starting = Thread(target=self._start, name="start of parsers", daemon=True)
            try:
                starting.start()
            except RuntimeError as error:
                self._most_processes = 0
                logger.warning("outputs are parsed in this process alone (%r)", error)
            else:
                self._starting = starting

    def close(self) -> None:
        """End the processes. Whoever is still parsing goes on here."""
        with self._changed:
            self._is_closed = True
            self.ready = 0
            self._idle.clear()
            processes = list(self._all)
            self._changed.notify_all()
        for process in processes:
            process.end(0.0)
        if self._starting is not None:
            self._starting.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _count(self, size_bytes: int) -> None:
        """Count what is parsed here, and start the processes when it is enough."""
        with self._changed:
            self._bytes_left -= size_bytes
            is_enough = self._bytes_left <= 0
        if is_enough:
            self.start()

    def _start(self) -> None:
        try:
            for _ in range(self._most_processes):
                process = _Process()
                with self._changed:
                    self._all.append(process)
                    if self._is_closed:
                        process.end(0.0)
                        return
        except OSError as error:
            logger.warning("a process to parse outputs could not be started; it is done without (%r)", error)
        for process in list(self._all):
            try:
                process.wait_until_ready()
            except (EOFError, OSError) as error:
                self._say_ended(process, error)
                continue
            with self._changed:
                if not self._is_closed:
                    self.ready += 1
                self._give_back(process)

    def _take(self) -> _Process | None:
        """Return an idle process, waited for if there are any, or None."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or not self.ready)
            return self._idle.popleft() if self._idle else None

    def _give_back(self, process: _Process) -> None:
        with self._changed:
            if not self._is_closed:
                self._idle.append(process)
                self._changed.notify()

    def _lose(self, process: _Process, error: BaseException) -> None:
        self._say_ended(process, error)
        with self._changed:
            if not self._is_closed:
                self.ready -= 1
                self._changed.notify_all()

    def _say_ended(self, process: _Process, error: BaseException) -> None:
        status = process.end(_SECONDS_TO_END)
        if not self._is_closed:
            logger.warning(
                "a process that parses outputs has ended with status %s; it is done without (%r)", status, error
            )

    def _parse_here(self, text: bytearray, part: OutputPart) -> PartRows:
        # Its memory is used again for every part of this thread, but for the one after an error, which may hold a document,
        # and after a long one, that could perhaps not be cut and has taken several times its size.
        parser: simdjson.Parser = self._here.__dict__.pop("parser", None) or simdjson.Parser()
        rows = parse_part(parser, memoryview(text), part)
        if len(text) <= TEXT_BYTES:
            self._here.parser = parser
        return rows


class _Process:
    """One process with its connection and the memory that it shares with this one."""

    def __init__(self) -> None:
        descriptor = os.memfd_create("part of an output")
        try:
            os.ftruncate(descriptor, MEMORY_BYTES)
            self._memory = mmap.mmap(descriptor, MEMORY_BYTES)
            self._connection, theirs = Pipe()
            with theirs:
                self._process = _popen(theirs, descriptor)
        finally:
            os.close(descriptor)

    def wait_until_ready(self) -> None:
        """Return when it takes requests.

        :raises EOFError: if it has ended, or :class:`OSError`.
        """
        self._connection.recv()

    def parse(self, fragments: Fragments, size: int, part: OutputPart) -> PartRows:
        """Return the rows of a part of ``size`` bytes.

        :raises OutputInvalidError: as :func:`~media_embeddings.output_rows.parse_part` does.
        :raises NotAPartError: likewise.
        :raises EOFError: if it has ended, or :class:`OSError`.
        """
        at = 0
        for fragment in fragments:
            self._memory[at : at + len(fragment)] = fragment
            at += len(fragment)
        self._connection.send(Request(size, part))
        answer: Answer = self._connection.recv()
        if answer.refused is not None:
            raise OutputInvalidError(answer.refused.message, answer.refused.code)
        if answer.rows is None:
            raise NotAPartError(answer.no_part)
        rows = answer.rows
        return replace(rows, embedding=vectors_in(self._memory, len(rows.start_sec), part.rules.dimension).copy())

    def end(self, seconds: float) -> int:
        """Wait so long for its end, then end it; return its status."""
        return end(self._process, seconds)


def _popen(connection: Connection, memory: int) -> subprocess.Popen[bytes]:
    given = (connection.fileno(), memory)
    return subprocess.Popen(  # noqa: S603 - this interpreter and a module of its own
        [*_COMMAND, *map(str, given)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # Threads for linear algebra take longer to start than everything else, and have nothing to do.
        env=bare_environment() | {"OPENBLAS_NUM_THREADS": "1"},
        pass_fds=given,
    )


def _default_processes() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return min(_MOST_PROCESSES, cores) if cores > 1 and hasattr(os, "memfd_create") else 0
