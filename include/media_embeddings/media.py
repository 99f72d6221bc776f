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
