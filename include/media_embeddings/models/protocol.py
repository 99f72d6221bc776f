"""What an embedding model has to say of itself: one model is one module here, and adding one touches no other file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from media_embeddings.media import MediaObject, MediaType
from media_embeddings.models.segments import SegmentRules
from media_embeddings.reasons import Reason

MEBIBYTE = 1024**2
GIBIBYTE = 1024**3


class ParameterError(ValueError):
    """A model parameter has a name or value that the model does not take."""

    def __init__(self, parameter: str, message: str, documentation: str) -> None:
        super().__init__(f"{message}; see {documentation}")
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model takes: sizes in bytes by media type, and text in tokens."""

    size_bytes: Mapping[MediaType, int]
    text_tokens: int


class EmbeddingModel(Protocol):
    """A model that StartAsyncInvoke serves."""

    @property
    def name(self) -> str:
        """Return the name in settings, logs and the table's folder, for example ``marengo-3-0``."""

    @property
    def model_id(self) -> str:
        """Return the bare Bedrock id: StartAsyncInvoke takes no inference profile."""

    @property
    def dimension(self) -> int:
        """Return the length of its vectors."""

    @property
    def media_types(self) -> frozenset[MediaType]:
        """Return the media types that it embeds."""

    @property
    def regions(self) -> frozenset[str]:
        """Return the regions in which StartAsyncInvoke serves it."""

    @property
    def limits(self) -> Limits:
        """Return what it takes."""

    @property
    def embedding_options(self) -> frozenset[str]:
        """Return the values that ``embeddingOption`` may have in its output."""

    def parameters(self, media_type: MediaType, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the complete parameters of a request, in Bedrock's own names and in one form.

        :param given: what the library sets for this media type.
        :raises ParameterError: naming the parameter, what is allowed, and the documentation.
        """

    def segment_rules(self, media_type: MediaType, parameters: Mapping[str, Any]) -> SegmentRules:
        """Return what the output of a request has to hold.

        :param parameters: as :meth:`parameters` gives them.
        """

    def rejection(self, media: MediaObject) -> Reason | None:
        """Return why the model can't take an object, as far as its listing tells."""

    def model_input(
        self, media: MediaObject, parameters: Mapping[str, Any], *, bucket_owner: str | None, text: str | None
    ) -> dict[str, Any]:
        """Return the request body for an object.

        :param parameters: as :meth:`parameters` gives them.
        :param bucket_owner: the account of the media's bucket, sent where it is given.
        :param text: the content of a text object: text is sent inline.
        """
