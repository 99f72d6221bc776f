"""The media of a library: what kinds there are, and how one S3 object with one content is told from another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class MediaType(StrEnum):
    """The kinds of media that a model can embed."""

    VIDEO = "video"
    AUDIO = "audio"
    IMAGE = "image"
    TEXT = "text"


class Processing(StrEnum):
    """The two ways in which Bedrock embeds an object."""

    ASYNC = "async"
    """``StartAsyncInvoke``: a job that takes a slot of the window."""
    SYNC = "sync"
    """``InvokeModel``: the answer is the output."""


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What the header of an object says of its content; None where it does not say."""

    container: str | None = None
    duration_sec: float | None = None
    picture_codec: str | None = None
    """None where there is no track of pictures."""
    sound_codec: str | None = None
    width: int | None = None
    """Pixels, as are heights."""
    height: int | None = None
    bytes_read: int = 0
    """How much of the object was read to find out."""


@dataclass(frozen=True, slots=True)
class TextSegment:
    """A part of a text that is one request: what its vector stands for."""

    text: str
    start_char: int
    """In characters of the object's text, as :mod:`media_embeddings.texts` defines it; ``end_char`` is behind the last."""
    end_char: int
    start_sec: float | None = None
    """Of subtitles, the times at which they are shown."""
    end_sec: float | None = None


@dataclass(frozen=True, slots=True)
class MediaObject:
    """One S3 object with one content.

    ``etag`` stands without the double quotes that S3 puts around it; ``key`` is unescaped; ``size_bytes`` is the
    size of the whole object; ``last_modified`` is in UTC.
    """

    bucket: str
    key: str
    etag: str
    size_bytes: int
    last_modified: datetime
    media_type: MediaType

    @property
    def uri(self) -> str:
        """Return ``s3://bucket/key``, unescaped."""
        return f"s3://{self.bucket}/{self.key}"
