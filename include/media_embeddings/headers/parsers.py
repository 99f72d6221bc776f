"""The processes that parse headers, and what they answer. One that dies of an object is replaced."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import LifoQueue
from types import TracebackType
from typing import IO, Self, cast

from media_embeddings.child_processes import bare_environment, command_of, end
from media_embeddings.headers.content import Span
from media_embeddings.headers.parsing import Parsed
from media_embeddings.media import MediaFacts, MediaObject, MediaType

# Headers are waited for longer than they are parsed: a few processes serve many reads.
_MOST_PROCESSES = 4
_SECONDS_TO_END = 5.0
_COMMAND = command_of("media_embeddings.headers.parser_process")


class ParserDiedError(Exception):
    """The process ended without an answer: the header crashed it, or took too long."""


@dataclass(frozen=True, slots=True)
class HeaderBytes:
    """What is known of an object: ranges, each with where it begins."""

    media: MediaObject
    ranges: Sequence[tuple[int, bytes]]
    is_final: bool
    """Whether no more of it will be fetched."""


@dataclass(frozen=True, slots=True)
class _Running:
    """A process with its two pipes."""

    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    answers: IO[bytes]

    @classmethod
    def start(cls) -> Self:
        """Start a process."""
        process = subprocess.Popen(  # noqa: S603 - this interpreter and a module of its own
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=bare_environment(),
        )
        return cls(process, cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout))

    def ask(self, line: bytes, contents: Iterable[bytes]) -> bytes:
        """Return the line of the answer; nothing where the process has ended."""
        try:
            self.requests.write(line)
            for content in contents:
                self.requests.write(content)
            self.requests.flush()
        except BrokenPipeError:
            return b""
        return self.answers.readline()

    def end(self, seconds: float) -> int:
        """Wait so long for its end, then end it; return its status."""
        status = end(self.process, seconds)
        self.answers.close()
        with suppress(BrokenPipeError):  # the rest of a request that nobody is there to read
            self.requests.close()
        return status


class _Parser:
    """A place for one process, which is started when it is first needed."""

    def __init__(self) -> None:
        self._running: _Running | None = None

    def parse(self, header: HeaderBytes) -> Parsed:
        """Return what the process says of a header.

        :raises ParserDiedError: when it ends instead of answering; the next call starts another one.
        """
        running = self._running = self._running or _Running.start()
        request = {
            "media_type": header.media.media_type,
            "key": header.media.key,
            "size_bytes": header.media.size_bytes,
            "is_final": header.is_final,
            "ranges": [(start, len(content)) for start, content in header.ranges],
        }
        answer = running.ask(json.dumps(request).encode() + b"\n", (content for _, content in header.ranges))
        if not answer.endswith(b"\n"):
            self._running = None
            raise ParserDiedError(f"the process that read its header ended with status {running.end(_SECONDS_TO_END)}")
        return _parsed(answer)

    def close(self) -> None:
        """End the process."""
        if self._running is not None:
            self._running.end(0.0)
            self._running = None


class Parsers:
    """A few processes that many threads share."""

    def __init__(self, processes: int | None = None) -> None:
        self._all = [_Parser() for _ in range(processes or min(_MOST_PROCESSES, os.cpu_count() or 1))]
        self._idle: LifoQueue[_Parser] = LifoQueue()
        for parser in reversed(self._all):
            self._idle.put(parser)

    def parse(self, header: HeaderBytes) -> Parsed:
        """Return what a header says; waits for a process that is idle.

        :raises ParserDiedError: when a process ended instead of answering.
        """
        parser = self._idle.get()
        try:
            return parser.parse(header)
        finally:
            self._idle.put(parser)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for parser in self._all:
            parser.close()


def _parsed(answer: bytes) -> Parsed:
    value = json.loads(answer)
    facts, missing = value["facts"], value["missing"]
    if facts is not None:
        facts["kind"] = MediaType(facts["kind"]) if facts["kind"] else None
    return Parsed(
        facts=MediaFacts(**facts) if facts is not None else None,
        missing=Span(*missing) if missing is not None else None,
        damage=value["damage"],
    )
