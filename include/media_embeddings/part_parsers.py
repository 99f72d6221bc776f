"""Parses parts of outputs: here, or in processes of their own as soon as there is enough to parse."""

from __future__ import annotations

import logging
import mmap
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Condition, Thread, local
from types import TracebackType
from typing import Self

import simdjson

from media_embeddings.output_rows import NotAPartError, OutputInvalidError, PartRows, Place, RowRules, parse_rows
from media_embeddings.part_messages import MEMORY_BYTES, TEXT_BYTES, Answer, Request, vectors_in

logger = logging.getLogger(__name__)

Pieces = Sequence[bytes | memoryview]

# Two parse faster than one process receives.
_MOST_PROCESSES = 2
# A process takes as long to start as some 100 MiB take to parse.
_BYTES_WORTH_PROCESSES = 256 * 1024**2
# Nothing is imported from the folder that the task happens to run in.
_COMMAND = [sys.executable, "-P", "-m", "media_embeddings.part_parser_process"]
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")


class PartParsers:
    """What the threads of a merge parse with. As a context manager it ends its processes when it is left.

    A part whose process has died is parsed here, and so is everything while no process is ready.

    :param most_processes: how many there may be; by default two, and none on a single core.
    """

    def __init__(self, most_processes: int | None = None, *, worth_bytes: int = _BYTES_WORTH_PROCESSES) -> None:
        self._most_processes = _cores_worth() if most_processes is None else most_processes
        self._worth_bytes, self._expected_bytes = worth_bytes, 0
        self._changed = Condition()
        self._idle: deque[_Process] = deque()
        self.ready = 0
        """How many processes take texts."""
        self._starting: Thread | None = None
        self._is_closed = False
        self._here = local()

    def expect(self, size_bytes: int) -> None:
        """Say that so many bytes of text are about to come."""
        with self._changed:
            self._expected_bytes += size_bytes
            if self._expected_bytes >= self._worth_bytes and self._starting is None and self._most_processes:
                self._starting = Thread(target=self._start, name="start of parsers", daemon=True)
                self._starting.start()

    def parse(self, pieces: Pieces, rules: RowRules, *, first: int, place: Place) -> PartRows:
        """Return the rows of a part whose text is given in pieces.

        :raises OutputInvalidError: as :func:`~media_embeddings.output_rows.parse_rows` does.
        :raises NotAPartError: likewise.
        """
        size = sum(map(len, pieces))
        process = self._take() if size <= TEXT_BYTES else None
        if process is not None:
            try:
                rows = process.parse(pieces, size, rules, first, place)
            except (EOFError, OSError) as error:
                self._lose(process, error)
            except BaseException:
                self._give_back(process)
                raise
            else:
                self._give_back(process)
                return rows
        return self._parse_here(b"".join(pieces), rules, first, place)

    def close(self) -> None:
        """End the processes; nobody may be parsing any more."""
        with self._changed:
            self._is_closed = True
        if self._starting is not None:
            self._starting.join()
        while self._idle:
            self._idle.popleft().end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        try:
            processes = [_Process() for _ in range(self._most_processes)]
        except OSError as error:
            logger.warning("outputs are parsed in this process alone: no other could be started (%s)", error)
            return
        for process in processes:
            try:
                process.wait_until_ready()
            except (EOFError, OSError) as error:
                self._ended(process, error)
                continue
            with self._changed:
                self.ready += 1
                self._idle.append(process)

    def _take(self) -> _Process | None:
        """Return an idle process, waited for if there are any, or None."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or not self.ready)
            return self._idle.popleft() if self._idle else None

    def _give_back(self, process: _Process) -> None:
        with self._changed:
            self._idle.append(process)
            self._changed.notify()

    def _lose(self, process: _Process, error: Exception) -> None:
        self._ended(process, error)
        with self._changed:
            self.ready -= 1
            self._changed.notify_all()

    def _ended(self, process: _Process, error: Exception) -> None:
        status = process.end()
        if not self._is_closed:
            logger.warning("a process that parses outputs has ended with status %s; others go on (%r)", status, error)

    def _parse_here(self, text: bytes, rules: RowRules, first: int, place: Place) -> PartRows:
        # Its memory is used again for every part of this thread, but for the one after an error, which may hold a document.
        parser: simdjson.Parser = self._here.__dict__.pop("parser", None) or simdjson.Parser()
        rows = parse_rows(parser, text, rules, first=first, place=place)
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

        :raises EOFError: if it has ended.
        """
        self._connection.recv()

    def parse(self, pieces: Pieces, size: int, rules: RowRules, first: int, place: Place) -> PartRows:
        """Return the rows of a part of ``size`` bytes.

        :raises EOFError: if it has ended, as :class:`OSError`.
        """
        at = 0
        for piece in pieces:
            self._memory[at : at + len(piece)] = piece
            at += len(piece)
        self._connection.send(Request(size, rules, first, place))
        answer: Answer = self._connection.recv()
        if answer.refused is not None:
            raise OutputInvalidError(answer.refused.message, answer.refused.code)
        if answer.rows is None:
            raise NotAPartError(answer.no_part)
        rows = answer.rows
        return replace(rows, embedding=vectors_in(self._memory, len(rows.start_sec), rules.dimension).copy())

    def end(self) -> int:
        """End the process, and return its status."""
        self._connection.close()
        # It has nothing to put in order, and takes longer to end by itself.
        self._process.kill()
        # An array may still be looking at it.
        with suppress(BufferError):
            self._memory.close()
        return self._process.wait()


def _popen(connection: Connection, memory: int) -> subprocess.Popen[bytes]:
    """Start a process without the credentials that the environment may hold."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # Threads for linear algebra take longer to start than everything else, and have nothing to do.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    given = (connection.fileno(), memory)
    return subprocess.Popen(  # noqa: S603 - this interpreter and a module of its own
        [*_COMMAND, *map(str, given)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment,
        pass_fds=given,
    )


def _cores_worth() -> int:
    """Return how many processes have a core to run on beside this one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    is_shared = hasattr(os, "memfd_create")
    return min(_MOST_PROCESSES, cores) if cores > 1 and is_shared else 0
