"""Media that are sent with a request instead of lying in S3: how they are written, and how large they may be."""

from __future__ import annotations

import base64
from typing import Any

from media_embeddings.media import MediaObject

MOST_CONTENT_BYTES = 36_000_000
"""Of ``base64String``, before it is encoded: https://docs.twelvelabs.io/docs/cloud-partner-integrations/amazon-bedrock"""
MOST_BODY_BYTES = 25_000_000
"""Of a request: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html"""
# For what stands around the content: the other fields of a request are a few hundred characters.
_ENVELOPE_BYTES = 16_384


class ContentTooLargeError(ValueError):
    """Media do not go into a request: they have to be read from S3."""


def fits_a_request(size_bytes: int) -> bool:
    """Return whether media of this size can be sent with a request."""
    return size_bytes <= MOST_CONTENT_BYTES and _encoded_bytes(size_bytes) + _ENVELOPE_BYTES <= MOST_BODY_BYTES


def media_source(media: MediaObject, bucket_owner: str | None, content: bytes | None) -> dict[str, Any]:
    """Return an object as Marengo's requests name it: its location, or its content where that is given.

    :raises ContentTooLargeError: naming both limits.
    """
    if content is not None:
        return {"base64String": _encoded(media, content)}
    return {"s3Location": {"uri": media.uri} | ({"bucketOwner": bucket_owner} if bucket_owner else {})}


def _encoded(media: MediaObject, content: bytes) -> str:
    if not fits_a_request(len(content)):
        raise ContentTooLargeError(
            f"{media.uri} can't be sent with a request: its {len(content)} bytes are {_encoded_bytes(len(content))} in "
            f"base64, and base64String takes {MOST_CONTENT_BYTES} bytes of media in a body of {MOST_BODY_BYTES} bytes; "
            "send its S3 location, see https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html"
        )
    return base64.b64encode(content).decode("ascii")


def _encoded_bytes(size_bytes: int) -> int:
    return -(-size_bytes // 3) * 4
