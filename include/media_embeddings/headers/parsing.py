"""Makes sense of the bytes of a header that are there: by PyAV for video and audio, by Pillow for images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from media_embeddings.headers.content import Content, MissingRangeError, Span
from media_embeddings.media import MediaFacts, MediaType


@dataclass(frozen=True, slots=True)
class Parsed:
    """What came of parsing. With nothing set, the parsers can't tell what the object is."""

    facts: MediaFacts | None = None
    missing: Span | None = None
    """What is to be fetched before it can be told."""
    damage: str | None = None
    """Why the object is no media of any kind, whatever its other bytes are."""


class NoMediaError(Exception):
    """The parser has seen all that it asked for, and knows no such media."""


def parse(media_type: MediaType, key: str, content: Content) -> Parsed:
    """Return what the known bytes of an object say.

    :param media_type: what its suffix says.
    :param key: its key, whose suffix helps to tell containers apart.
    """
    try:
        return _parsed(media_type, PurePosixPath(key).suffix.lower(), content)
    except MissingRangeError:
        return Parsed(missing=content.missing)


def _parsed(media_type: MediaType, suffix: str, content: Content) -> Parsed:
    # Both libraries take long to import, and are needed only in the process that parses.
    from media_embeddings.headers.pictures import picture_facts
    from media_embeddings.headers.tracks import track_facts

    damage = []
    if media_type is MediaType.IMAGE:
        try:
            return Parsed(facts=picture_facts(content))
        except NoMediaError as error:
            damage.append(str(error))
    try:
        # The suffix of an image would make PyAV believe it.
        facts = track_facts(content, "" if damage else suffix)
    except NoMediaError as error:
        damage.append(str(error))
        return Parsed(damage="; ".join(damage)) if not content.is_cut else Parsed()
    return Parsed(facts=facts)
