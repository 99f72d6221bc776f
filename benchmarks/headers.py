"""How much of an object is read to find out what it is: requests and bytes, beside the size of the file.

    PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/headers.py

Files are made here, with tiny pictures: in real ones the samples are larger and the headers are not, so that the share that is
read is smaller still. The ranges are given from memory, so the seconds are those of parsing alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from benchmarks.results import Result, machine, record
from media_embeddings.headers.parsers import Parsers
from media_embeddings.headers.ranged_reading import MOST_BYTES, MOST_REQUESTS, Header, read_header
from media_embeddings.media import MediaObject, MediaType
from tests.unit.media_embeddings.headers import made_files

COMMAND = "PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/headers.py"
MOST_BYTES_OF_A_FILM = 400_000
FASTSTART = (("movflags", "faststart"),)
FRAGMENTED = (("movflags", "frag_keyframe+empty_moov+default_base_moof"),)
FILES: dict[str, tuple[MediaType, Callable[[], bytes]]] = {
    "2 h, header at the end.mp4": (MediaType.VIDEO, lambda: made_files.long_film(7200)),
    "2 h, header in front.mp4": (MediaType.VIDEO, lambda: made_files.long_film(7200, options=FASTSTART)),
    "10 min, fragmented.mp4": (MediaType.VIDEO, lambda: made_files.video(options=FRAGMENTED, seconds=600.0)),
    "10 min.mov": (MediaType.VIDEO, lambda: made_files.video("mov", seconds=600.0)),
    "10 min.mkv": (MediaType.VIDEO, lambda: made_files.video("matroska", seconds=600.0)),
    "10 min.webm": (MediaType.VIDEO, lambda: made_files.video("webm", "libvpx", "libopus", seconds=600.0)),
    "10 min.avi": (MediaType.VIDEO, lambda: made_files.video("avi", "mpeg4", "mp2", seconds=600.0)),
    "10 min.mpg": (
        MediaType.VIDEO,
        lambda: made_files.video("mpeg", "mpeg1video", "mp2", frames_per_second=25, seconds=600.0),
    ),
    "10 min.wav": (MediaType.AUDIO, lambda: made_files.audio("wav", "pcm_s16le", seconds=600.0)),
    "10 min.mp3": (MediaType.AUDIO, lambda: made_files.audio("mp3", "libmp3lame", seconds=600.0)),
    "10 min.flac": (MediaType.AUDIO, lambda: made_files.audio("flac", "flac", seconds=600.0)),
    "4000x3000.jpg": (MediaType.IMAGE, lambda: made_files.image("JPEG", (4000, 3000))),
    "4000x3000.png": (MediaType.IMAGE, lambda: made_files.image("PNG", (4000, 3000))),
}


def measured(key: str, media_type: MediaType, content: bytes, parsers: Parsers) -> tuple[Header, float]:
    """Read one header, after the parser's process has been started."""
    media = MediaObject("films", key, "e1", len(content), datetime.now(UTC), media_type)
    started = time.perf_counter()
    header = read_header(media, lambda _, span: content[span.start : span.end], parsers)
    return header, time.perf_counter() - started


def main() -> None:
    """Measure every kind of file, and record what the worst of them takes."""
    print("| file | bytes | requests | bytes read | share | ms |\n|---|---|---|---|---|---|")
    headers: dict[str, Header] = {}
    with Parsers(1) as parsers:
        measured("a.png", MediaType.IMAGE, made_files.image(), parsers)
        for key, (media_type, make) in FILES.items():
            content = make()
            header, seconds = measured(key, media_type, content, parsers)
            headers[key] = header
            share = header.bytes_read / len(content)
            print(
                f"| {key} | {len(content)} | {header.requests} | {header.bytes_read} | {share:.3f} | {seconds * 1e3:.1f} |"
            )
            if header.facts is None:
                sys.exit(f"nothing was found out of {key}")
    films = [header for key, header in headers.items() if key.startswith("2 h")]
    record(
        Result.at_most(
            MOST_BYTES_OF_A_FILM,
            name="bytes read of the header of a film of two hours",
            value=max(header.bytes_read for header in films),
            unit="bytes",
            baseline="the whole header, with its tables of samples: 0.9 to 2.6 MB",
            limit=f"the budget of {MOST_BYTES} bytes",
            command=COMMAND,
            conditions=f"{machine()}; made files",
        ),
        Result.at_most(
            8,
            name="requests for the header of any file",
            value=max(header.requests for header in headers.values()),
            unit="requests",
            baseline="1, where everything stands in the first 96 KiB",
            limit=f"the budget of {MOST_REQUESTS} requests",
            command=COMMAND,
            conditions=f"{machine()}; made files",
        ),
    )


if __name__ == "__main__":
    main()
