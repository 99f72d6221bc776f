"""The sample library: real media in nested folders with awkward names, three of which are meant to fail."""

from __future__ import annotations

import hashlib
import json
import mimetypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from local_stack import media_files, speech
from local_stack.media_files import (
    clip,
    clip_cut_off,
    clip_repeated,
    photograph,
    photograph_enlarged,
    soundtrack,
    speech_encoded,
    text,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "demo-media"
PREFIX = "library/"
_PARALLEL_UPLOADS = 8

MediaType = Literal["video", "audio", "image", "text"]
Outcome = Literal["embedded", "failed", "rejected"]


@dataclass(frozen=True)
class SampleObject:
    """One object of the sample library, and what is expected to become of it."""

    key: str
    """Below the library's prefix."""
    make: Callable[[], bytes]
    """Makes its content, always the same."""
    media_type: MediaType | None
    """None where the suffix is of no media type."""
    outcome: Outcome = "embedded"
    reason_code: str | None = None
    """The reason code that the ledger gives when it isn't embedded."""


def _photograph(key: str, package: Literal["skimage", "sklearn"], name: str) -> SampleObject:
    return SampleObject(f"photographs/{key}", partial(photograph, package, name), "image")


def _description(key: str, content: str) -> SampleObject:
    return SampleObject(f"descriptions/{key}", partial(text, content), "text")


_WELCOME = (
    "Welcome to the media archive. Every night, the films, the photographs and the recordings of this library are "
    "turned into vectors, so that they can be found by what they show."
)
_TRAIN = "The next train to the city leaves from platform four in six minutes. Please mind the gap."
_WEATHER = (
    "Guten Abend. Morgen ist es im Norden bewölkt, und an der Küste weht ein frischer Wind. Im Süden scheint die "
    "Sonne, bei höchstens zwölf Grad."
)
_RECIPE = (
    "Faites fondre le beurre, ajoutez la farine, puis versez le lait peu à peu. Laissez reposer la pâte "
    "pendant une heure."
)
_LIGHTHOUSE = "The lighthouse keeper wrote one line a day: wind from the west, two ships, no fog."

SAMPLE_OBJECTS: tuple[SampleObject, ...] = (
    SampleObject("films/Big Buck Bunny (excerpt).mp4", partial(clip, "bigbuckbunny.mp4"), "video"),
    SampleObject("films/street/bikes in the city.mp4", partial(clip, "bikes.mp4"), "video"),
    SampleObject("films/street/2019/bikes + bikes + bikes.mp4", partial(clip_repeated, "bikes.mp4", 3), "video"),
    SampleObject("films/calls/Autotelefon für Zürich.mp4", partial(clip_repeated, "carphone_pristine.mp4", 3), "video"),
    _photograph("people/astronaut.png", "skimage", "astronaut.png"),
    _photograph("animals/Chelsea's nap.png", "skimage", "chelsea.png"),
    _photograph("kitchen/coffee, 100% arabica.png", "skimage", "coffee.png"),
    _photograph("space/hubble deep field.jpg", "skimage", "hubble_deep_field.jpg"),
    _photograph("space/rocket+launch.jpg", "skimage", "rocket.jpg"),
    _photograph('medicine/retina "left".jpg', "skimage", "retina.jpg"),
    _photograph("vehicles/motorcycle=left.png", "skimage", "motorcycle_left.png"),
    _photograph("vehicles/motorcycle=right.png", "skimage", "motorcycle_right.png"),
    _photograph("textures/grass#1.png", "skimage", "grass.png"),
    _photograph("textures/brick & mortar.png", "skimage", "brick.png"),
    _photograph("中国/寺庙.jpg", "sklearn", "china.jpg"),
    _photograph("plants/fleur d'été.jpg", "sklearn", "flower.jpg"),
    SampleObject("sound/Big Buck Bunny (soundtrack).wav", partial(soundtrack, "bigbuckbunny.mp4"), "audio"),
    SampleObject("sound/speech/en/welcome.wav", partial(media_files.speech, _WELCOME, "en"), "audio"),
    SampleObject("sound/speech/en/platform 4.mp3", partial(speech_encoded, _TRAIN, "en-us", "mp3"), "audio"),
    SampleObject("sound/speech/de/Wetter für morgen.wav", partial(media_files.speech, _WEATHER, "de"), "audio"),
    SampleObject("sound/speech/fr/crêpes.flac", partial(speech_encoded, _RECIPE, "fr", "flac"), "audio"),
    SampleObject("sound/speech/en/lighthouse.flac", partial(speech_encoded, _LIGHTHOUSE, "en", "flac"), "audio"),
    _description("red motorcycle.txt", "A red motorcycle stands in a garage between boxes and tools."),
    _description("green meadow.txt", "A green meadow with short grass, seen from above on a cloudy day."),
    _description("rabbit.txt", "A big white rabbit wakes up under a tree, stretches, and walks into the morning sun."),
    _description("fusée.txt", "Une fusée blanche attend sur son pas de tir, avant le lever du soleil."),
    _description("寺庙.txt", "一座古老的寺庙, 屋顶是红色的。"),
    SampleObject(
        "broken/upload that broke off.mp4", partial(clip_cut_off, "bikes.mp4", 0.4), "video", "rejected", "corrupt"
    ),
    SampleObject(
        "broken/poster, far too large.png",
        partial(photograph_enlarged, "astronaut.png", 2600),
        "image",
        "rejected",
        "too_large",
    ),
    SampleObject(
        "broken/minutes of the meeting.docx", partial(text, "PK no media"), None, "rejected", "unsupported_media"
    ),
)


@dataclass(frozen=True)
class Upload:
    """What an upload did: how many objects it wrote, and how many were there already with the same content."""

    uploaded: int
    unchanged: int


class SampleLibrary:
    """The sample library's files in a folder of their own, made once.

    :param directory: where they are kept; made again when the code or a package that makes them has changed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest_path = directory / "manifest.json"

    def make(self) -> Path:
        """Make the files that don't exist yet, and return the path of the manifest.

        The manifest holds ``objects``: for each its ``key``, ``media_type``, ``outcome``, ``reason_code``,
        ``size_bytes`` and ``etag``, which is the MD5 of its content.
        """
        maker = _maker()
        if not (self.manifest_path.exists() and json.loads(self.manifest_path.read_text())["maker"] == maker):
            described = [self._make(sample) for sample in SAMPLE_OBJECTS]
            part = self.manifest_path.with_suffix(".part")
            part.write_text(json.dumps({"maker": maker, "objects": described}, indent=2, ensure_ascii=False) + "\n")
            part.replace(self.manifest_path)
        return self.manifest_path

    def upload(self, client: S3Client, bucket: str = BUCKET, prefix: str = PREFIX) -> Upload:
        """Upload what isn't there yet with the same content; leaves other objects alone."""
        described = json.loads(self.make().read_text())["objects"]
        existing = {
            found["Key"]: found["ETag"].strip('"')
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            for found in page.get("Contents", ())
        }
        missing = [one for one in described if existing.get(prefix + one["key"]) != one["etag"]]

        def put(key: str) -> None:
            client.put_object(
                Bucket=bucket,
                Key=prefix + key,
                Body=self._path(key).read_bytes(),
                ContentType=mimetypes.guess_type(key)[0] or "application/octet-stream",
            )

        with ThreadPoolExecutor(_PARALLEL_UPLOADS) as pool:
            list(pool.map(put, (one["key"] for one in missing)))
        return Upload(len(missing), len(described) - len(missing))

    def _make(self, sample: SampleObject) -> dict[str, object]:
        content = sample.make()
        path = self._path(sample.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {
            "key": sample.key,
            "media_type": sample.media_type,
            "outcome": sample.outcome,
            "reason_code": sample.reason_code,
            "size_bytes": len(content),
            "etag": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        }

    def _path(self, key: str) -> Path:
        return self.directory / "files" / key


def _maker() -> str:
    """Return what changes when the files may become others."""
    sources = b"".join(Path(module.__file__).read_bytes() for module in (media_files, speech) if module.__file__)
    return hashlib.sha256(sources + Path(__file__).read_bytes()).hexdigest()
