"""Reads the texts that a plan is to embed, and cuts each into the parts that its model takes.

Bedrock is sent a text with the request. All texts of a plan are read before its first batch is cut, since what can't be read
is in none; until then they lie on the local disk, and of each its parts are known by their places alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain

from media_embeddings.in_order import Share, in_order
from media_embeddings.library import Library, suffix_of
from media_embeddings.media import MediaType, TextSegment
from media_embeddings.models.protocol import TextLimits
from media_embeddings.parts import CutText, Part
from media_embeddings.planning import PlannedObject
from media_embeddings.reasons import Reason, ReasonCode
from media_embeddings.storage import ObjectChangedError, ObjectNotFoundError, ObjectUnreadableError, Storage
from media_embeddings.texts.cutting import cut, whole
from media_embeddings.texts.kept_texts import KeptTexts
from media_embeddings.texts.object_text import UnreadableTextError
from media_embeddings.texts.reading import read_text
from media_embeddings.texts.splitting import Fit

_PARALLEL_READS = 16
# Of content; decoded, and while it is cut, it takes several times as much.
_BYTES_UNDER_WAY = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class ReadTexts:
    """What came of reading the texts of a plan."""

    planned: tuple[PlannedObject, ...]
    """Those that go on, in the order given; texts with their parts."""
    unreadable: tuple[tuple[PlannedObject, Reason], ...]


def read_texts(
    storage: Storage, library: Library, limits: TextLimits, planned: Sequence[PlannedObject], kept: KeptTexts
) -> ReadTexts:
    """Read the texts among planned objects, unless the model reads them from S3.

    :param kept: is given the text of each, by the object's request id.
    """
    wanted = [one for one in planned if one.media.media_type is MediaType.TEXT]
    if not wanted or limits.is_read_from_s3:
        return ReadTexts(tuple(planned), ())
    reader = _TextReader(storage, library, Fit(limits.tokens, limits.characters, library.characters_per_token))
    found: dict[str, Sequence[Part] | Reason] = {}
    answers = in_order(reader.read, wanted, threads=_PARALLEL_READS, most_bytes=_BYTES_UNDER_WAY)
    with closing(answers):
        for one, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Reason):
                found[one.request_id] = answer
            else:
                text, found[one.request_id] = answer
                kept.keep(one.request_id, text)
    going_on: list[PlannedObject] = []
    unreadable: list[tuple[PlannedObject, Reason]] = []
    for one in planned:
        match found.get(one.request_id, ()):
            case Reason() as reason:
                unreadable.append((one, reason))
            case parts:
                going_on.append(replace(one, parts=parts) if parts else one)
    return ReadTexts(tuple(going_on), tuple(unreadable))


@dataclass(frozen=True, slots=True)
class _TextReader:
    storage: Storage
    library: Library
    fit: Fit

    def read(self, planned: PlannedObject, share: Share) -> tuple[str, Sequence[Part]] | Reason:
        """Return the text of an object with its parts, or why it can't be embedded."""
        share.take(planned.media.size_bytes)
        try:
            content = self.storage.read(planned.media.uri, etag=planned.media.etag)
            read = read_text(content, suffix_of(planned.media.key), self.library.text_column)
        except ObjectNotFoundError:
            return Reason(ReasonCode.SOURCE_GONE, "the object was deleted after it had been listed")
        except ObjectChangedError:
            return Reason(ReasonCode.CHANGED_DURING_RUN, "the object was replaced after it had been listed")
        except ObjectUnreadableError as error:
            return Reason(ReasonCode.ACCESS_DENIED, str(error))
        except UnreadableTextError as error:
            return error.reason
        if planned.finished_output_uri is not None or _is_cut_by_bedrock(planned):
            return read.text, (_only_part(planned, whole(read)),)
        segments = cut(read, self.fit, self.library.text_overlap)
        first, second = next(segments), next(segments, None)
        if second is None:
            return read.text, (_only_part(planned, first),)
        return read.text, CutText.of(planned.request_id, chain((first, second), segments))


def _only_part(planned: PlannedObject, segment: TextSegment) -> Part:
    return Part(
        planned.request_id,
        segment.start_char,
        segment.end_char,
        segment.start_sec,
        segment.end_sec,
        finished_output_uri=planned.finished_output_uri,
    )


def _is_cut_by_bedrock(planned: PlannedObject) -> bool:
    # Marengo 2.7's parameter; other models have none that lets a request succeed with a part of its text.
    return bool(json.loads(planned.parameters).get("textTruncate") == "end")
