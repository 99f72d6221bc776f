"""What one valid request asks for, in words that all models share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class MediaKind(StrEnum):
    """What a media source holds."""

    VIDEO = "video"
    AUDIO = "audio"
    IMAGE = "image"
    TEXT = "text"
    """A text that lies on S3."""


@dataclass(frozen=True, slots=True)
class MediaSource:
    """Either an object on S3 (``uri``, unescaped) or the content itself."""

    uri: str | None = None
    bucket_owner: str | None = None
    content: bytes | None = None
    name: str = ""

    @property
    def bucket_and_key(self) -> tuple[str, str]:
        """The bucket and key of ``uri``."""
        if self.uri is None:
            raise ValueError("This media source has no S3 location.")
        bucket, _, key = self.uri.removeprefix("s3://").partition("/")
        return bucket, key


@dataclass(frozen=True, slots=True)
class Segmentation:
    """How time is cut. Seconds.

    ``shots``: at shot boundaries, each segment ``minimum`` to ``maximum`` long. ``fixed``: every ``length``.
    ``even``: into equal parts with a length close to ``length``.
    """

    method: Literal["shots", "fixed", "even"]
    length: float = 10.0
    minimum: float = 4.0
    maximum: float = 10.0


@dataclass(frozen=True, slots=True)
class TextCut:
    """How a text is cut into segments, and what happens to one of more tokens than the model takes."""

    most_characters: int
    most_tokens: int
    truncation: Literal["START", "END", "NONE"]


@dataclass(frozen=True, slots=True)
class EmbeddingTask:
    """One valid request.

    ``options`` are the model's own names; empty for text and images. ``scopes`` are ``clip`` and ``asset``.
    ``separate`` and ``fused`` say whether each option gets rows of its own and whether all together get some.
    """

    input_type: str
    text: str | None = None
    kind: MediaKind | None = None
    sources: tuple[MediaSource, ...] = ()
    start_sec: float = 0.0
    end_sec: float | None = None
    segmentation: Segmentation = Segmentation("even")
    options: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ("clip",)
    separate: bool = True
    fused: bool = False
    fuses_what_there_is: bool = False
    """Whether the fused rows are there also for a file with one track only."""
    dimension: int | None = None
    """Of the vectors, where the request chooses it."""
    text_cut: TextCut | None = None
    """How a text is cut; None where it is not."""
    most_seconds: float | None = None
    """The longest media that this call takes; None where the model has one limit for all."""
    is_single: bool = False
    """Whether it is a call of its own kind, for one embedding, with sizes of its own."""

    @property
    def source_name(self) -> str:
        """The URI of the (first) source, ``inline`` for content in the request, ``""`` without media."""
        if not self.sources:
            return ""
        return self.sources[0].uri or "inline"
