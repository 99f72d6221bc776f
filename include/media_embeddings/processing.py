"""Chooses how Bedrock is asked for an object: at once through InvokeModel, or by a job. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from media_embeddings.media import MediaObject, MediaType, Processing
from media_embeddings.models.media_source import fits_a_request
from media_embeddings.models.protocol import EmbeddingModel

if TYPE_CHECKING:
    from media_embeddings.planning import PlannedObject


class ProcessingMode(StrEnum):
    """What a library says of the choice."""

    AUTO = "auto"
    """Through InvokeModel what it takes, all else by jobs."""
    ASYNC = "async"
    SYNC = "sync"


class MediaSource(StrEnum):
    """How an image reaches InvokeModel."""

    S3_LOCATION = "s3_location"
    """Bedrock reads it."""
    BASE64 = "base64"
    """It is sent with the request."""


def invoked_media_types(
    mode: ProcessingMode, media_types: Collection[MediaType], model: EmbeddingModel, model_id: str | None
) -> frozenset[MediaType]:
    """Return the media types whose objects may go through InvokeModel.

    :param model_id: what InvokeModel is given for the model; None where there is nothing.
    """
    if mode is ProcessingMode.ASYNC or model_id is None:
        return frozenset()
    return model.invoke_media_types & frozenset(media_types)


def processing_of(media: MediaObject, invoked: Collection[MediaType], media_source: MediaSource) -> Processing:
    """Return how an object is processed: an image that does not go into a request goes by a job.

    :param invoked: as :func:`invoked_media_types` returns them.
    """
    if media.media_type not in invoked:
        return Processing.ASYNC
    # Texts are cut to what a request takes, and sent with it either way.
    is_sent = media.media_type is not MediaType.TEXT and media_source is MediaSource.BASE64
    return Processing.SYNC if not is_sent or fits_a_request(media.size_bytes) else Processing.ASYNC


def with_processing(
    planned: Iterable[PlannedObject], invoked: Collection[MediaType], media_source: MediaSource
) -> tuple[PlannedObject, ...]:
    """Return planned objects, each with the processing that is chosen for it."""
    return tuple(
        one
        if (chosen := processing_of(one.media, invoked, media_source)) is one.processing
        else replace(one, processing=chosen)
        for one in planned
    )
