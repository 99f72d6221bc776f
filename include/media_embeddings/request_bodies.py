"""Request bodies as a manifest holds them: complete, or with a place for the content of the source, filled in when sent."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from media_embeddings.media import MediaObject
from media_embeddings.models.protocol import EmbeddingModel

# Any content that occurs nowhere else in a request.
_MARK = b"the content of the source"
_MARKED = base64.b64encode(_MARK).decode()


@dataclass(frozen=True, slots=True)
class RequestBody:
    """The body of a request."""

    model_input: dict[str, Any]
    content_member: tuple[str, ...] | None = None
    """The names that lead to the member that the content goes into, base64-encoded; None where it is complete."""


def request_body(
    model: EmbeddingModel,
    media: MediaObject,
    parameters: Mapping[str, Any],
    bucket_owner: str | None,
    *,
    text: str | None,
    with_content: bool,
) -> RequestBody:
    """Return the body of a request, which says where the media lie, or has a place for their content.

    Contents stay where they are until they are sent: a manifest of a thousand images would be gigabytes.
    """
    if not with_content:
        return RequestBody(model.model_input(media, parameters, bucket_owner=bucket_owner, text=text))
    marked = model.model_input(media, parameters, bucket_owner=bucket_owner, text=text, content=_MARK)
    member = next(_ways_to(_MARKED, marked), None)
    if member is None:
        raise ValueError(f"{model.name} has no place in its request for the content of {media.media_type}")
    return RequestBody(_emptied(marked, member), member)


def _ways_to(wanted: str, body: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, value in body.items():
        if value == wanted:
            yield (name,)
        elif isinstance(value, Mapping):
            yield from ((name, *way) for way in _ways_to(wanted, value))


def _emptied(body: Mapping[str, Any], member: tuple[str, ...]) -> dict[str, Any]:
    name, *others = member
    return {**body, name: _emptied(body[name], tuple(others)) if others else ""}
