"""Amazon Nova Multimodal Embeddings.

Rules: https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html
"""

from __future__ import annotations

from typing import ClassVar

from ..embedding_task import EmbeddingTask, MediaKind, MediaSource, Segmentation, TextCut
from ..settings import Settings
from ..validation import Fields, malformed
from .model import GIGABYTE, MEGABYTE, Document, Embedding, Model, OutputRow, json_content

SCHEMA = "nova-multimodal-embed-v1"
DIMENSIONS = (256, 384, 1024, 3072)
PURPOSES = (
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
FORMATS = {
    MediaKind.IMAGE: ("png", "jpeg", "gif", "webp"),
    MediaKind.AUDIO: ("mp3", "wav", "ogg"),
    MediaKind.VIDEO: ("mp4", "mov", "mkv", "webm", "flv", "mpeg", "mpg", "wmv", "3gp"),
}
MOST_VALUE_CHARACTERS = 8192
MOST_SINGLE_CHARACTERS = 50_000
MOST_SINGLE_SECONDS = 30.0
DEFAULT_TEXT_CHARACTERS, DEFAULT_SECONDS = 32_000, 5
FILES = {
    "TEXT": "embedding-text.jsonl",
    "IMAGE": "embedding-image.json",
    "VIDEO": "embedding-video.jsonl",
    "AUDIO": "embedding-audio.jsonl",
    # The page lists a file for each modality, and none for both together.
    "AUDIO_VIDEO_COMBINED": "embedding-video.jsonl",
}
# What the simulator calls the tracks of a file, as the model's output does.
_TYPES = {"visual": "VIDEO", "audio": "AUDIO", "fused": "AUDIO_VIDEO_COMBINED"}


class Nova2Multimodal(Model):
    """A request nested under its kind of call; the dimension is the request's choice; rows as JSON lines with a status."""

    model_id = "amazon.nova-2-multimodal-embeddings-v1:0"
    dimension = 3072
    regions = frozenset({"us-east-1"})
    profile_regions: ClassVar = {}
    direct_invoke_regions = frozenset({"us-east-1"})
    invoke_input_types = frozenset({"text", "image", "audio", "video"})
    end_of_life: ClassVar = {}
    max_object_bytes: ClassVar = {
        MediaKind.TEXT: 634 * MEGABYTE,
        MediaKind.IMAGE: 50 * MEGABYTE,
        MediaKind.VIDEO: 2 * GIGABYTE,
        MediaKind.AUDIO: 1 * GIGABYTE,
    }
    max_single_bytes: ClassVar = {
        MediaKind.TEXT: 1 * MEGABYTE,
        MediaKind.VIDEO: 100 * MEGABYTE,
        MediaKind.AUDIO: 100 * MEGABYTE,
    }
    max_media_seconds = 2 * 3600.0
    max_text_tokens = 8192
    options_share_segments = True
    max_timed_segments = 1434
    max_text_segments = 1900
    image_formats = ("PNG", "JPEG", "GIF", "WEBP")
    main_output = "segmented-embedding-result.json"

    def _task(self, fields: Fields, _settings: Settings) -> EmbeddingTask:
        fields.choice("schemaVersion", (SCHEMA,), default=SCHEMA)
        fields.choice("taskType", ("SEGMENTED_EMBEDDING",))
        return self._embedding(fields.nested("segmentedEmbeddingParams"), is_single=False)

    def invoke_task(self, model_input: object, settings: Settings) -> EmbeddingTask:
        """Check a request for one embedding."""
        fields = Fields(model_input)
        fields.choice("schemaVersion", (SCHEMA,), default=SCHEMA)
        fields.choice("taskType", ("SINGLE_EMBEDDING",))
        task = self._embedding(fields.nested("singleEmbeddingParams"), is_single=True)
        return self._finished(fields, task, settings)

    def _embedding(self, params: Fields, *, is_single: bool) -> EmbeddingTask:
        params.choice("embeddingPurpose", PURPOSES)
        dimension = params.number_choice("embeddingDimension", DIMENSIONS, DIMENSIONS[-1])
        kind = MediaKind(params.one_of("text", "image", "audio", "video"))
        payload = params.nested(kind.value)
        read = {MediaKind.TEXT: self._text, MediaKind.IMAGE: self._image}.get(kind, self._timed)
        task = read(kind, payload, dimension, is_single=is_single)
        payload.finish()
        params.finish()
        return task

    def _text(self, kind: MediaKind, payload: Fields, dimension: int, *, is_single: bool) -> EmbeddingTask:
        truncation = payload.choice("truncationMode", ("START", "END", "NONE"))
        length = None
        if not is_single:
            segmentation = payload.nested("segmentationConfig")
            length = segmentation.whole_number("maxLengthChars", minimum=800, maximum=50_000)
            segmentation.finish()
        text, sources = None, tuple[MediaSource, ...]()
        if payload.one_of("value", "source") == "source":
            sources = (_source(payload.nested("source"), takes_bytes=False),)
        elif not is_single:
            raise malformed(f"{payload.path}/value", "asynchronous operations take S3 inputs only")
        else:
            text = payload.text("value")
            if len(text) > MOST_VALUE_CHARACTERS:
                raise malformed(f"{payload.path}/value", f"expected maxLength: {MOST_VALUE_CHARACTERS}")
        most = MOST_SINGLE_CHARACTERS if is_single else length or DEFAULT_TEXT_CHARACTERS
        cut = TextCut(most, self.max_text_tokens, truncation)  # type: ignore[arg-type]
        return EmbeddingTask(
            kind.value,
            text=text,
            kind=kind if sources else None,
            sources=sources,
            dimension=dimension,
            text_cut=cut,
            is_single=is_single,
        )

    def _image(self, kind: MediaKind, payload: Fields, dimension: int, *, is_single: bool) -> EmbeddingTask:
        payload.choice("format", FORMATS[kind])
        payload.choice("detailLevel", ("STANDARD_IMAGE", "DOCUMENT_IMAGE"), default="STANDARD_IMAGE")
        source = _source(payload.nested("source"), takes_bytes=is_single)
        return EmbeddingTask(kind.value, kind=kind, sources=(source,), dimension=dimension, is_single=is_single)

    def _timed(self, kind: MediaKind, payload: Fields, dimension: int, *, is_single: bool) -> EmbeddingTask:
        payload.choice("format", FORMATS[kind])
        mode = "AUDIO_VIDEO_SEPARATE"
        if kind is MediaKind.VIDEO:
            mode = payload.choice("embeddingMode", ("AUDIO_VIDEO_COMBINED", "AUDIO_VIDEO_SEPARATE"))
        length: int | None = round(MOST_SINGLE_SECONDS)
        if not is_single:
            segmentation = payload.nested("segmentationConfig")
            length = segmentation.whole_number("durationSeconds", minimum=1, maximum=30)
            segmentation.finish()
        return EmbeddingTask(
            kind.value,
            kind=kind,
            sources=(_source(payload.nested("source"), takes_bytes=is_single),),
            segmentation=Segmentation("fixed", length=float(length or DEFAULT_SECONDS)),
            options=("visual", "audio") if kind is MediaKind.VIDEO else ("audio",),
            separate=mode == "AUDIO_VIDEO_SEPARATE",
            fused=mode == "AUDIO_VIDEO_COMBINED",
            fuses_what_there_is=True,
            dimension=dimension,
            most_seconds=MOST_SINGLE_SECONDS if is_single else None,
            is_single=is_single,
        )

    def row(self, embedding: Embedding, _settings: Settings) -> OutputRow:
        """Return a row in the words that faults know; the files and answers are made of them."""
        row: OutputRow = {"embedding": embedding.vector.tolist()}
        if embedding.option is not None:
            start, end = embedding.times
            row |= {"embeddingOption": _TYPES[embedding.option], "startSec": start, "endSec": end}
        elif embedding.start_char is not None:
            row |= {"embeddingOption": "TEXT", "startChar": embedding.start_char, "endChar": embedding.end_char}
        else:
            row |= {"embeddingOption": "IMAGE"}
        if embedding.truncated_characters is not None:
            row["truncatedCharLength"] = embedding.truncated_characters
        if embedding.failure is not None:
            row["failure"] = embedding.failure
        return row

    def answer(self, document: Document) -> Document:
        """Return the embeddings of a call for one."""
        return {
            "embeddings": [
                {"embeddingType": row["embeddingOption"], "embedding": row["embedding"]}
                | ({"truncatedCharLength": row["truncatedCharLength"]} if "truncatedCharLength" in row else {})
                for row in document["data"]
            ]
        }

    def output_files(self, document: Document, task: EmbeddingTask, output_uri: str) -> dict[str, bytes]:
        """Return a file of lines for each type of embedding, and the result that names them."""
        if "data" not in document:
            return {self.main_output: json_content(document)}
        by_type: dict[str, list[OutputRow]] = {}
        for row in document["data"]:
            by_type.setdefault(row["embeddingOption"], []).append(row)
        files = {
            FILES[name]: b"".join(json_content(_line(place, row)) + b"\n" for place, row in enumerate(rows))
            for name, rows in by_type.items()
        }
        result = {
            "sourceFileUri": task.source_name,
            "embeddingDimension": task.dimension,
            "embeddingResults": [_result(name, rows, output_uri) for name, rows in by_type.items()],
        }
        return {**files, self.main_output: json_content(result)}


def _source(source: Fields, *, takes_bytes: bool) -> MediaSource:
    if takes_bytes and source.one_of("bytes", "s3Location") == "bytes":
        result = MediaSource(content=source.inline("bytes"))
    else:
        location = source.nested("s3Location")
        result = MediaSource(uri=location.s3_uri("uri"))
        location.finish()
    source.finish()
    return result


def _line(place: int, row: OutputRow) -> Document:
    metadata = {"segmentIndex": place}
    for name, of in (
        ("segmentStartSeconds", "startSec"),
        ("segmentEndSeconds", "endSec"),
        ("segmentStartCharPosition", "startChar"),
        ("segmentEndCharPosition", "endChar"),
        ("truncatedCharLength", "truncatedCharLength"),
    ):
        if of in row:
            metadata[name] = row[of]
    if "failure" in row:
        failure = {"failureReason": row["failure"], "message": "The segment could not be embedded."}
        return {"segmentMetadata": metadata, "status": "FAILURE", **failure}
    return {"embedding": row["embedding"], "segmentMetadata": metadata, "status": "SUCCESS"}


def _result(name: str, rows: list[OutputRow], output_uri: str) -> Document:
    failed = [row["failure"] for row in rows if "failure" in row]
    status = "SUCCESS" if not failed else "FAILURE" if len(failed) == len(rows) else "PARTIAL_SUCCESS"
    result = {"embeddingType": name, "status": status, "outputFileUri": f"{output_uri}/{FILES[name]}"}
    if failed:
        result |= {"failureReason": failed[0], "message": f"{len(failed)} of {len(rows)} segments failed."}
    return result


MODEL = Nova2Multimodal()
