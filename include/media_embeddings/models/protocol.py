"""What an embedding model has to say of itself: one model is one module here, and adding one touches no other file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from media_embeddings.media import MediaFacts, MediaObject, MediaType
from media_embeddings.models.lifecycle import Lifecycle
from media_embeddings.models.prices import PriceList
from media_embeddings.models.segments import SegmentRules
from media_embeddings.reasons import Reason

if TYPE_CHECKING:
    from media_embeddings.output_folder import OutputFolder
    from media_embeddings.results import SegmentRows

MEBIBYTE = 1024**2
GIBIBYTE = 1024**3


class ParameterError(ValueError):
    """A model parameter has a name or value that the model does not take."""

    def __init__(self, parameter: str, message: str, documentation: str) -> None:
        super().__init__(f"{message}; see {documentation}")
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class TextLimits:
    """The longest text that one request takes, in the unit that the model's page counts in; the other one is None."""

    tokens: int | None = None
    characters: int | None = None
    is_read_from_s3: bool = False
    """Whether the model reads a text from its S3 location and cuts it itself, instead of taking it with the request."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model takes of each media type: what is not named has no documented limit."""

    size_bytes: Mapping[MediaType, int]
    text: TextLimits
    duration_sec: Mapping[MediaType, float] = field(default_factory=dict)
    """The longest that may be, as ``least_duration_sec`` the shortest."""
    least_duration_sec: Mapping[MediaType, float] = field(default_factory=dict)
    least_pixels: Mapping[MediaType, tuple[int, int]] = field(default_factory=dict)
    """Of the longer and the shorter side, as ``greatest_pixels``."""
    greatest_pixels: Mapping[MediaType, tuple[int, int]] = field(default_factory=dict)
    greatest_aspect: Mapping[MediaType, float] = field(default_factory=dict)
    """Of the longer side to the shorter one."""
    image_formats: frozenset[str] = frozenset()
    """In lower case, as in ``image/jpeg``."""
    unconfirmed: frozenset[str] = frozenset()
    """Names of the limits above that AWS's pages do not state for Bedrock, but the model's maker does."""


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
    def text_limits(self) -> TextLimits:
        """Return the longest text that one request takes."""

    @property
    def output_file(self) -> str:
        """Return the name of the file that tells, below an invocation's prefix, that its output is there."""

    @property
    def lifecycle(self) -> Lifecycle:
        """Return when it ends."""

    @property
    def prices(self) -> PriceList:
        """Return what it costs, from the data file beside its module, which is read when it is first asked for."""

    @property
    def invoke_media_types(self) -> frozenset[MediaType]:
        """Return the media types that InvokeModel embeds as StartAsyncInvoke does; none where it has no such request."""

    def invoke_model_id(self, region: str) -> str | None:
        """Return the id that InvokeModel wants in a region, an inference profile's or the bare one; None where it has none."""

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

    def rejection_by_facts(
        self, media: MediaObject, facts: MediaFacts, parameters: Mapping[str, Any] | None = None
    ) -> Reason | None:
        """Return why the model can't take an object, as far as its header tells.

        :param parameters: as :meth:`parameters` gives them, where they are known: some decide how much may be sent.
        """

    def model_input(
        self,
        media: MediaObject,
        parameters: Mapping[str, Any],
        *,
        bucket_owner: str | None,
        text: str | None,
        content: bytes | None = None,
    ) -> dict[str, Any]:
        """Return the request body for an object, of StartAsyncInvoke and, for ``invoke_media_types``, of InvokeModel.

        :param parameters: as :meth:`parameters` gives them.
        :param bucket_owner: the account of the media's bucket, sent where it is given.
        :param text: the content of a text object, sent with the request unless the model reads it from S3.
        :param content: the object itself, sent with the request instead of its location.
        :raises ContentTooLargeError: where the content does not go into a request.
        """

    def query_input(self, text: str) -> dict[str, Any]:
        """Return the body of InvokeModel for a text that is searched for.

        The answer holds one row, and is read by :func:`media_embeddings.results.parse_output` as that of a text.
        """

    def read_output(self, folder: OutputFolder, media_type: MediaType) -> SegmentRows:
        """Return the segments of what an invocation has written.

        :raises OutputInvalidError: where it is not what the model promises, or says that it could not embed the object.
        :raises ObjectNotFoundError: where it is not there (yet).
        """
