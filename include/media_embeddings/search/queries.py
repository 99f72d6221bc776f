"""What can be asked: a text, an image, an object that is in the tables already, or a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from media_embeddings.media import MediaType


class SearchRefusedError(ValueError):
    """A query can't be answered as it stands; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class TextQuery:
    """Words; Bedrock makes their vector."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageQuery:
    """The content of an image file; Bedrock makes its vector."""

    content: bytes


@dataclass(frozen=True, slots=True)
class StoredImageQuery:
    """An image in S3, read as the principal of the first library that is searched; Bedrock makes its vector."""

    uri: str


@dataclass(frozen=True, slots=True)
class LikeQuery:
    """What is like a segment that is in a searched table already; nothing is asked of Bedrock.

    Without a segment, what is like the object as a whole: its only segment, or its ``asset`` segments, of which the
    nearest counts. The segment or object itself is no hit.
    """

    media_uri: str
    segment_index: int | None = None


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """A vector as a model has made it."""

    vector: Sequence[float]
    model: str | None = None
    """Whose vector it is; None where only its length can tell."""


Query: TypeAlias = TextQuery | ImageQuery | StoredImageQuery | LikeQuery | VectorQuery


@dataclass(frozen=True, slots=True)
class Narrowing:
    """Which segments may be hits."""

    media_types: frozenset[MediaType] | None = None
    """None for all, as below."""
    options: frozenset[str] | None = None
    """Values of ``embedding_option``; segments without one are no hits then."""
    scope: str | None = None
    """``clip`` or ``asset``."""
