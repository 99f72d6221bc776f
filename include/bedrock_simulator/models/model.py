"""What a model is to the simulator."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, ClassVar

from ..embedding_task import EmbeddingTask, MediaKind, Segmentation
from ..errors import validation_error
from ..settings import Settings
from ..tokens import token_count
from ..validation import Fields, malformed
from ..vectors import Vector

MEGABYTE = 1_000_000
GIGABYTE = 1_000_000_000

OutputRow = dict[str, Any]
Document = dict[str, Any]
"""Rows as ``{"data": [row, ...]}``, or what a fault has made of them."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """One vector (float32, of the model's dimension) and what it stands for. Seconds; None for text and images."""

    vector: Vector
    option: str | None = None
    scope: str | None = None
    start_sec: float | None = None
    end_sec: float | None = None
    start_char: int | None = None
    end_char: int | None = None
    truncated_characters: int | None = None
    """After how many characters its text was cut off."""
    failure: str | None = None
    """Why there is none after all, in the words of the model's output."""

    def shifted(self, seconds: float) -> Embedding:
        """Return it later by so many seconds."""
        if self.start_sec is None or self.end_sec is None:
            return self
        return replace(self, start_sec=self.start_sec + seconds, end_sec=self.end_sec + seconds)

    @property
    def times(self) -> tuple[float | None, float | None]:
        """Start and end, rounded to milliseconds."""
        return tuple(None if sec is None else round(sec, 3) for sec in (self.start_sec, self.end_sec))  # type: ignore[return-value]


class Model(ABC):
    """One model: its rules and its rows.

    A module in this package offers one as ``MODEL``. Sizes are bytes, times seconds.
    """

    model_id: ClassVar[str]
    dimension: ClassVar[int]
    regions: ClassVar[frozenset[str]]
    """Where StartAsyncInvoke and InvokeModel can be called."""
    profile_regions: ClassVar[Mapping[str, str]]
    """The geographical prefix of the inference profile, by the region in which it can be called."""
    direct_invoke_regions: ClassVar[frozenset[str]]
    """Where InvokeModel takes the bare model id."""
    invoke_input_types: ClassVar[frozenset[str]]
    """What InvokeModel takes; StartAsyncInvoke takes every input type."""
    end_of_life: ClassVar[Mapping[str, date]]
    """The first day without the model, by region."""
    max_object_bytes: ClassVar[Mapping[MediaKind, int]]
    max_media_seconds: ClassVar[float]
    max_text_tokens: ClassVar[int]
    options_share_segments: ClassVar[bool]
    """Whether all embedding options have the same segments under dynamic segmentation."""
    max_single_bytes: ClassVar[Mapping[MediaKind, int]] = {}
    """What a call for one embedding takes, where that is less."""
    max_timed_segments: ClassVar[int | None] = None
    max_text_segments: ClassVar[int | None] = None
    image_formats: ClassVar[tuple[str, ...] | None] = None
    """By Pillow's names; None where the settings say it."""
    main_output: ClassVar[str] = "output.json"
    """The file that says how the embedding went."""

    def task(self, model_input: object, settings: Settings) -> EmbeddingTask:
        """Check a request's model input and say what it asks for.

        :raises BedrockError: a ``ValidationException`` if it breaks a rule.
        """
        fields = Fields(model_input)
        return self._finished(fields, self._task(fields, settings), settings)

    def invoke_task(self, model_input: object, settings: Settings) -> EmbeddingTask:
        """Check what InvokeModel is given and say what it asks for.

        :raises BedrockError: a ``ValidationException`` if it breaks a rule, or only StartAsyncInvoke takes it.
        """
        input_type = model_input.get("inputType") if isinstance(model_input, dict) else None
        if input_type in ("video", "audio"):
            raise validation_error(
                f"{self.model_id} takes {input_type} only by StartAsyncInvoke; "
                f"InvokeModel takes {', '.join(sorted(self.invoke_input_types))}."
            )
        return self.task(model_input, settings)

    def _finished(self, fields: Fields, task: EmbeddingTask, settings: Settings) -> EmbeddingTask:
        fields.finish()
        for source in task.sources:
            if source.uri is not None and source.bucket_owner is None and settings.bucket_owner_required:
                raise malformed("#", f"bucketOwner is required for {source.uri}")
            if source.content is not None and task.kind is not None:
                self.check_size(len(source.content), task.kind, "the inline content", is_single=task.is_single)
        return task

    @abstractmethod
    def _task(self, fields: Fields, settings: Settings) -> EmbeddingTask:
        """Read the model input."""

    @abstractmethod
    def row(self, embedding: Embedding, settings: Settings) -> OutputRow:
        """Return one row of the output's ``data``."""

    def document(self, embeddings: list[Embedding], settings: Settings) -> Document:
        """Return all rows, before a fault strikes them."""
        return {"data": [self.row(embedding, settings) for embedding in embeddings]}

    def answer(self, document: Document) -> Document:
        """Return InvokeModel's answer."""
        return document

    def output_files(self, document: Document, task: EmbeddingTask, output_uri: str) -> dict[str, bytes]:  # noqa: ARG002
        """Return what a job writes, by file name; the main output is the last one."""
        return {self.main_output: json_content(document)}

    def check_size(self, size_bytes: int, kind: MediaKind, name: str, *, is_single: bool = False) -> None:
        """Check the size of a media source.

        :raises BedrockError: a ``ValidationException`` if it is empty or larger than the model takes.
        """
        limit = (self.max_single_bytes if is_single else {}).get(kind, self.max_object_bytes[kind])
        if size_bytes > limit:
            raise validation_error(
                f"The size of {name} is {size_bytes} bytes; {self.model_id} takes {kind} up to {limit} bytes."
            )
        if size_bytes == 0:
            raise validation_error(f"{name[0].upper()}{name[1:]} is empty.")

    def check_tokens(self, text: str) -> None:
        """Check the length of a text.

        :raises BedrockError: a ``ValidationException`` if it has more tokens than the model takes.
        """
        count = token_count(text)
        if count > self.max_text_tokens:
            raise validation_error(
                f"The text has about {count} tokens; {self.model_id} takes up to {self.max_text_tokens}."
            )


def json_content(document: Document) -> bytes:
    """Return a document as its file holds it."""
    return json.dumps(document, separators=(",", ":")).encode()


def evenly() -> Segmentation:
    """Return the segmentation of sound that nobody asked for: an even split close to 10 s."""
    return Segmentation("even", length=10.0)
