"""A process that parses parts of outputs: ``python -m media_embeddings.part_parser_process``, started by :mod:`part_parsers`.

The JSON parser keeps Python's interpreter lock while it works, so only in another process does it run beside what receives
outputs and encodes rows. A part's text comes, and its vectors go, by memory that both processes have; everything else by a
connection. This module imports little, so that a process is there soon.
"""

from __future__ import annotations

import gc
import mmap
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

import simdjson

from media_embeddings.output_rows import NotAPartError, OutputInvalidError, parse_part
from media_embeddings.part_messages import MEMORY_BYTES, Answer, Request, vectors_in


def serve(connection: Connection, memory: mmap.mmap) -> None:
    """Answer requests until there are no more, after a first message that says that this process is ready."""
    parser = simdjson.Parser()
    # Who has asked may be gone at any time.
    with suppress(EOFError, OSError):
        connection.send(None)
        while True:
            connection.send(_answer(parser, memory, connection.recv()))


def _answer(parser: simdjson.Parser, memory: mmap.mmap, request: Request) -> Answer:
    text = memoryview(memory)[: request.text_bytes]
    try:
        rows = parse_part(parser, text, request.part)
        vectors_in(memory, *rows.embedding.shape)[:] = rows.embedding
    except OutputInvalidError as error:
        return Answer(refused=error.reason)
    except NotAPartError as error:
        return Answer(no_part=str(error))
    return Answer(rows=replace(rows, embedding=rows.embedding[:0]))


if __name__ == "__main__":
    # They come to a task with all its processes, and the task says what becomes of this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Nothing here is part of a cycle, and every part is many objects to look through.
    gc.disable()
    serve(Connection(int(sys.argv[1])), mmap.mmap(int(sys.argv[2]), MEMORY_BYTES))
