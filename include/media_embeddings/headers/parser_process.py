"""The process that parses headers: ``python -m media_embeddings.headers.parser_process``, started by :mod:`parsers`.

Headers come from anybody, and what reads them is written in C. So it runs in a process of its own, without credentials,
network or files of its own, with little memory, and no longer than :data:`MOST_SECONDS` for one object: whatever an
object does to it, only that object is lost.

It takes requests on its standard input: a line of JSON, then the bytes of the ranges; and answers with a line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from typing import Any, BinaryIO

from media_embeddings.headers.content import Content
from media_embeddings.headers.parsing import Parsed, parse
from media_embeddings.media import MediaType

# A header takes milliseconds; FFmpeg gives up a broken one within a second.
MOST_SECONDS = 20.0
# PyAV maps some 300 MB, most of them its own code.
_MOST_MEMORY = 2 * 1024**3


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    while line := requests.readline():
        request = json.loads(line)
        ranges = [(start, requests.read(length)) for start, length in request["ranges"]]
        content = Content(request["size_bytes"], ranges, is_final=request["is_final"])
        signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
        parsed = parse(MediaType(request["media_type"]), request["key"], content)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        answers.write(json.dumps(_as_json(parsed)).encode() + b"\n")
        answers.flush()


def _as_json(parsed: Parsed) -> dict[str, Any]:
    missing = parsed.missing
    return {
        "facts": asdict(parsed.facts) if parsed.facts else None,
        "missing": [missing.start, missing.end] if missing else None,
        "damage": parsed.damage,
    }


def main() -> None:
    """Serve the process that has started this one."""
    # Nothing handles the alarm: the system ends the process also in the middle of a loop in C.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    # What a library prints must not get among the answers.
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
