"""Amazon Nova Multimodal Embeddings: segments as JSON lines with a status each. One model for each dimension it offers.

The objects are read from S3 by the model itself, texts as well, which it cuts itself. Vectors of two dimensions are never
compared, so each dimension is a model with a table of its own.
https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from media_embeddings.media import MediaFacts, MediaObject, MediaType
from media_embeddings.models.lifecycle import Lifecycle
from media_embeddings.models.limits import rejection_by_facts, rejection_by_size
from media_embeddings.models.prices import PriceList, price_list
from media_embeddings.models.protocol import GIBIBYTE, MEBIBYTE, Limits, TextLimits
from media_embeddings.models.segments import SegmentRules, Track
from media_embeddings.models.values import Checker
from media_embeddings.reasons import Reason, ReasonCode

if TYPE_CHECKING:
    from media_embeddings.output_folder import OutputFolder
    from media_embeddings.results import Segment, SegmentCollector, SegmentRows

_DOCUMENTATION = "https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html"
_SCHEMA = "nova-multimodal-embed-v1"
_DIMENSIONS = (256, 384, 1024, 3072)
_PURPOSES = (
    "GENERIC_INDEX",
    "GENERIC_RETRIEVAL",
    "TEXT_RETRIEVAL",
    "IMAGE_RETRIEVAL",
    "VIDEO_RETRIEVAL",
    "DOCUMENT_RETRIEVAL",
    "AUDIO_RETRIEVAL",
    "CLASSIFICATION",
    "CLUSTERING",
)
_MODES = ("AUDIO_VIDEO_COMBINED", "AUDIO_VIDEO_SEPARATE")
_COMMON = frozenset({"embeddingPurpose", "embeddingDimension"})
_NAMES: Mapping[MediaType, frozenset[str]] = {
    MediaType.VIDEO: frozenset({"embeddingMode", "segmentationConfig"}),
    MediaType.AUDIO: frozenset({"segmentationConfig"}),
    MediaType.IMAGE: frozenset({"detailLevel"}),
    MediaType.TEXT: frozenset({"truncationMode", "segmentationConfig"}),
}
# By media type, the format that a suffix stands for.
_FORMATS: Mapping[MediaType, Mapping[str, str]] = {
    MediaType.VIDEO: {f".{name}": name for name in ("mp4", "mov", "mkv", "webm", "flv", "mpeg", "mpg", "wmv", "3gp")},
    MediaType.AUDIO: {f".{name}": name for name in ("mp3", "wav", "ogg")},
    MediaType.IMAGE: {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp"},
}
# Whose text is a part of what the file holds: the model would embed all of it.
_STRUCTURED_TEXTS = frozenset({".jsonl", ".csv", ".srt", ".vtt"})
_MOST_TIMED_SEGMENTS = 1434
_LIFECYCLE = Lifecycle("https://docs.aws.amazon.com/bedrock/latest/userguide/model-lifecycle.html")

_RESULT = "segmented-embedding-result.json"
# What an output names no file for lies here.
_FILES: Mapping[str, str] = {
    "TEXT": "embedding-text.jsonl",
    "IMAGE": "embedding-image.json",
    "VIDEO": "embedding-video.jsonl",
    "AUDIO": "embedding-audio.jsonl",
    "AUDIO_VIDEO_COMBINED": "embedding-video.jsonl",
}
# What is not named here may pass, as RATE_LIMIT_EXCEEDED and INTERNAL_SERVER_EXCEPTION do: what is missing is bought anew.
_REASONS: Mapping[str, ReasonCode] = {
    "RAI_VIOLATION_INPUT_TEXT_DEFLECTION": ReasonCode.CONTENT_REFUSED,
    "RAI_VIOLATION_INPUT_IMAGE_DEFLECTION": ReasonCode.CONTENT_REFUSED,
    "INVALID_CONTENT": ReasonCode.CORRUPT,
}

# As in Marengo 2.7, the larger reading of "GB" leaves the last word to Bedrock. The number of segments limits a text.
_LIMITS = Limits(
    size_bytes={
        MediaType.VIDEO: 2 * GIBIBYTE,
        MediaType.AUDIO: 1 * GIBIBYTE,
        MediaType.IMAGE: 50 * MEBIBYTE,
        MediaType.TEXT: 634 * MEBIBYTE,
    },
    text=TextLimits(characters=1900 * 50_000, is_read_from_s3=True),
    duration_sec={MediaType.VIDEO: 2 * 3600.0, MediaType.AUDIO: 2 * 3600.0},
    image_formats=frozenset({"png", "jpeg", "gif", "webp"}),
)


@dataclass(frozen=True, slots=True)
class Nova2Multimodal:
    """Nova Multimodal Embeddings with vectors of one dimension."""

    dimension: int
    model_id: str = "amazon.nova-2-multimodal-embeddings-v1:0"
    media_types: frozenset[MediaType] = frozenset(MediaType)
    # https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html
    regions: frozenset[str] = frozenset({"us-east-1"})
    limits: Limits = _LIMITS
    embedding_options: frozenset[str] = frozenset(_FILES)
    lifecycle: Lifecycle = _LIFECYCLE
    output_file: str = _RESULT
    # InvokeModel takes another request than StartAsyncInvoke, and does not cut: it is for queries.
    invoke_media_types: frozenset[MediaType] = frozenset()

    @property
    def name(self) -> str:
        """Return the name of the model of this dimension."""
        return f"nova-2-multimodal-{self.dimension}"

    @property
    def text_limits(self) -> TextLimits:
        """Return the longest text that one request takes."""
        return self.limits.text

    @property
    def prices(self) -> PriceList:
        """Return what it costs."""
        return price_list(__file__)

    def invoke_model_id(self, region: str) -> str | None:
        """Return the bare id: it has no inference profile."""
        return self.model_id if region in self.regions else None

    def parameters(self, media_type: MediaType, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the complete parameters of a request. All are sent, as most are required."""
        check = Checker(_DOCUMENTATION)
        check.names(given, _COMMON | _NAMES[media_type], f"Nova Multimodal Embeddings for {media_type}")
        if given.get("embeddingDimension") not in (None, self.dimension):
            others = ", ".join(f"nova-2-multimodal-{dimension}" for dimension in _DIMENSIONS)
            raise check.error(
                "embeddingDimension",
                f"must be {self.dimension} with the model {self.name} (found {given['embeddingDimension']!r}); each "
                f"dimension is a model of its own: {others}",
            )
        values: dict[str, Any] = {
            "embeddingPurpose": check.choice(given, "embeddingPurpose", _PURPOSES, "GENERIC_INDEX"),
            "embeddingDimension": self.dimension,
        }
        if media_type is MediaType.VIDEO:
            values["embeddingMode"] = check.choice(given, "embeddingMode", _MODES, _MODES[0])
        if media_type is MediaType.IMAGE:
            values["detailLevel"] = check.choice(
                given, "detailLevel", ("STANDARD_IMAGE", "DOCUMENT_IMAGE"), "STANDARD_IMAGE"
            )
        if media_type is MediaType.TEXT:
            # As with Marengo 2.7, the model refuses what it would have to cut off unless it is told otherwise.
            values["truncationMode"] = check.choice(given, "truncationMode", ("START", "END", "NONE"), "NONE")
        if media_type is not MediaType.IMAGE:
            values["segmentationConfig"] = _segmentation(check, given, media_type)
        return values

    def segment_rules(self, media_type: MediaType, parameters: Mapping[str, Any]) -> SegmentRules:
        """Return what the output of a request has to hold. A segment may be shorter than was asked for."""
        if media_type is MediaType.IMAGE:
            return SegmentRules()
        if media_type is MediaType.TEXT:
            # There are no times by which to see whether all of it is there.
            return SegmentRules(options={"TEXT": Track.SEVERAL})
        if media_type is MediaType.AUDIO:
            return SegmentRules(options={"AUDIO": Track.SOUND})
        if parameters["embeddingMode"] == "AUDIO_VIDEO_SEPARATE":
            return SegmentRules(options={"VIDEO": Track.PICTURE, "AUDIO": Track.SOUND})
        return SegmentRules(options={"AUDIO_VIDEO_COMBINED": Track.PICTURE})

    def rejection(self, media: MediaObject) -> Reason | None:
        """Return why the model can't take an object, as far as its listing tells: its size, and its format by its suffix."""
        suffix = _suffix(media)
        if media.media_type is MediaType.TEXT and suffix in _STRUCTURED_TEXTS:
            return Reason(
                ReasonCode.UNSUPPORTED_MEDIA,
                f"{self.name} reads a text from S3 as it stands and would embed all of a {suffix} file; "
                "write its texts to .txt files, or choose another model for them",
            )
        formats = _FORMATS.get(media.media_type)
        if formats is not None and suffix not in formats:
            return Reason(
                ReasonCode.UNSUPPORTED_MEDIA,
                f"{self.name} takes {media.media_type} with the suffixes {', '.join(formats)}, and not {suffix or 'none'}; "
                f"convert it, see {_DOCUMENTATION}",
            )
        return rejection_by_size(media, self.limits)

    def rejection_by_facts(
        self, media: MediaObject, facts: MediaFacts, parameters: Mapping[str, Any] | None = None
    ) -> Reason | None:
        """Return why the model can't take an object, as far as its header tells: also that it would have too many segments."""
        if (found := rejection_by_facts(media, facts, self.limits)) is not None:
            return found
        length = ((parameters or {}).get("segmentationConfig") or {}).get("durationSeconds")
        if length is None or facts.duration_sec is None or facts.duration_is_estimated:
            return None
        segments = math.ceil(facts.duration_sec / length)
        if segments <= _MOST_TIMED_SEGMENTS:
            return None
        return Reason(
            ReasonCode.TOO_LONG,
            f"{facts.duration_sec:g} s in segments of {length} s are {segments} segments, more than the "
            f"{_MOST_TIMED_SEGMENTS} that {self.name} makes; set a greater segmentationConfig.durationSeconds (up to 30), "
            f"see {_DOCUMENTATION}",
        )

    def model_input(
        self,
        media: MediaObject,
        parameters: Mapping[str, Any],
        *,
        bucket_owner: str | None,  # noqa: ARG002 - its S3 location has no such field
        text: str | None,  # noqa: ARG002 - StartAsyncInvoke takes S3 locations only
        content: bytes | None = None,
    ) -> dict[str, Any]:
        """Return the request body of StartAsyncInvoke.

        :raises ValueError: where the content is given: it takes S3 locations only.
        """
        if content is not None:
            raise ValueError(f"{self.name} takes {media.uri} from S3 only, see {_DOCUMENTATION}")
        formats = _FORMATS.get(media.media_type)
        source: dict[str, Any] = {"source": {"s3Location": {"uri": media.uri}}}
        if formats is not None:
            source = {"format": formats[_suffix(media)], **source}
        own = {name: value for name, value in parameters.items() if name not in _COMMON}
        return {
            "schemaVersion": _SCHEMA,
            "taskType": "SEGMENTED_EMBEDDING",
            "segmentedEmbeddingParams": {
                **{name: parameters[name] for name in sorted(_COMMON)},
                media.media_type.value: {**source, **own},
            },
        }

    def query_input(self, text: str) -> dict[str, Any]:
        """Return the request for a text that is searched for in what was embedded for an index."""
        return {
            "schemaVersion": _SCHEMA,
            "taskType": "SINGLE_EMBEDDING",
            "singleEmbeddingParams": {
                "embeddingPurpose": "GENERIC_RETRIEVAL",
                "embeddingDimension": self.dimension,
                "text": {"truncationMode": "NONE", "value": text},
            },
        }

    def read_output(self, folder: OutputFolder, media_type: MediaType) -> SegmentRows:
        """Return the segments of all the files that the result names; one that failed refuses the object."""
        from media_embeddings.output_rows import OutputInvalidError
        from media_embeddings.results import SegmentCollector, read_json_lines

        with folder.whole(_RESULT) as content:
            try:
                result = json.loads(content)
            except ValueError as error:
                raise OutputInvalidError(f"{_RESULT} is no JSON, or cut off: {error}") from error
        collector = SegmentCollector(self.dimension)
        for one in self._results(result):
            embedding_type = one["embeddingType"]
            file = PurePosixPath(str(one.get("outputFileUri") or _FILES[embedding_type])).name
            with folder.chunks(file) as chunks:
                read_json_lines(chunks, partial(_take_line, collector, file, embedding_type, media_type))
            if one["status"] != "SUCCESS":
                raise _failure(f"some of {embedding_type}", one)
        return _with_scopes(collector.rows(), media_type)

    def _results(self, result: Any) -> list[dict[str, Any]]:
        """Return what a result says of each embedding type, of which none failed altogether."""
        from media_embeddings.output_rows import OutputInvalidError

        found = result.get("embeddingResults") if isinstance(result, dict) else None
        if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
            raise OutputInvalidError(f"{_RESULT} has no embeddingResults; the model's output has changed its form")
        if result.get("embeddingDimension", self.dimension) != self.dimension:
            raise OutputInvalidError(
                f"{_RESULT} says that its vectors have {result['embeddingDimension']} numbers, not {self.dimension}"
            )
        for one in found:
            if one.get("embeddingType") not in _FILES:
                raise OutputInvalidError(f"{_RESULT} has the unknown embeddingType {one.get('embeddingType')!r}")
            # What failed in part has the reasons in its file.
            if one.get("status") not in ("SUCCESS", "PARTIAL_SUCCESS"):
                raise _failure(f"all of {one['embeddingType']}", one)
        return found


def _suffix(media: MediaObject) -> str:
    return PurePosixPath(media.key).suffix.lower()


def _segmentation(check: Checker, given: Mapping[str, Any], media_type: MediaType) -> dict[str, Any]:
    """Return how an object is cut, with the documented default."""
    segmentation = given.get("segmentationConfig") or {}
    if not isinstance(segmentation, Mapping):
        raise check.error("segmentationConfig", f"must be a mapping (found {segmentation!r})")
    name, least, most, default = (
        ("maxLengthChars", 800, 50_000, 32_000) if media_type is MediaType.TEXT else ("durationSeconds", 1, 30, 5)
    )
    check.names(segmentation, {name}, f"segmentationConfig for {media_type}")
    return {name: check.number(segmentation, name, least=least, most=most, whole=True) or default}


def _failure(subject: str, said: Mapping[str, Any]) -> Exception:
    from media_embeddings.output_rows import OutputInvalidError

    reason = str(said.get("failureReason") or said.get("status") or "no status")
    message = said.get("message")
    return OutputInvalidError(
        f"the model could not embed {subject}: {reason}{f', {message}' if message else ''}",
        _REASONS.get(reason, ReasonCode.OUTPUT_INCOMPLETE),
    )


def _take_line(
    collector: SegmentCollector, file: str, embedding_type: str, media_type: MediaType, number: int, line: Any
) -> None:
    from media_embeddings.output_rows import OutputInvalidError

    status = line.get("status")
    metadata = line.get("segmentMetadata")
    details: dict[str, Any] = {} if metadata is None else metadata.as_dict()
    if status not in (None, "SUCCESS"):
        said = {name: line.get(name) for name in ("status", "failureReason", "message")}
        raise _failure(f"segment {details.get('segmentIndex', number)} of {embedding_type}", said)
    try:
        collector.add(_segment(embedding_type, media_type, details), line.get("embedding"))
    except (OutputInvalidError, TypeError, ValueError) as error:
        raise OutputInvalidError(f"{file}, line {number + 1}: {error}") from error


def _segment(embedding_type: str, media_type: MediaType, details: Mapping[str, Any]) -> Segment:
    """Return what a line stands for. The page says both that ends are inclusive and that a character's end is not."""
    from media_embeddings.results import Segment

    if media_type is MediaType.IMAGE:
        return Segment(option=embedding_type, scope="asset")
    unit = "CharPosition" if media_type is MediaType.TEXT else "Seconds"
    start, end = _number(details, f"segmentStart{unit}"), _number(details, f"segmentEnd{unit}")
    if start < 0 or end <= start:
        raise ValueError(f"it covers {start:g} to {end:g}, which is nothing")
    if media_type is MediaType.TEXT:
        return Segment(option=embedding_type, start_char=int(start), end_char=int(end))
    return Segment(start, end, embedding_type)


def _number(details: Mapping[str, Any], name: str) -> float:
    value = details.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is no number")
    return float(value)


def _with_scopes(rows: SegmentRows, media_type: MediaType) -> SegmentRows:
    """Return the rows of a text of one segment as those of the whole object, as every other model's are."""
    if media_type is MediaType.TEXT and len(rows.embedding) == 1:
        return replace(rows, embedding_scope=["asset"])
    return rows


MODELS = tuple(Nova2Multimodal(dimension) for dimension in _DIMENSIONS)
