"""What is bought, and under which name: the embedding key and the request id.

Both are SHA-256 over their parts joined with NUL, which no part can hold, so that no two lists of parts collide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from media_embeddings.media import MediaObject


def canonical_parameters(parameters: Mapping[str, object]) -> str:
    """Return parameters as JSON in one form, so that equal parameters are equal strings."""
    return json.dumps(parameters, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


COLUMN_PARAMETER = "text_column"
"""Stands beside Bedrock's own parameters for texts in tables, since another column is another purchase."""


def bedrock_parameters(parameters: str) -> dict[str, Any]:
    """Return those of canonical parameters that are Bedrock's own, for the model."""
    values: dict[str, Any] = json.loads(parameters)
    values.pop(COLUMN_PARAMETER, None)
    return values


def embedding_key(tables: str, media: MediaObject, model_id: str, parameters: str) -> str:
    """Return the name of what is bought, whatever the attempt: 64 hexadecimal digits.

    :param tables: the tables root: another root is another purchase.
    :param parameters: as :func:`canonical_parameters` gives them.
    """
    return _digest(tables.rstrip("/"), media.bucket, media.key, media.etag, str(media.size_bytes), model_id, parameters)


def request_id(key: str, attempt: int, *, forced_by: str | None = None) -> str:
    """Return the name of one attempt to buy an embedding key: 64 hexadecimal digits.

    It is the ``clientRequestToken`` of StartAsyncInvoke (1 to 256 printable ASCII characters,
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_StartAsyncInvoke.html) and the name of the
    output prefix.

    :param forced_by: the run id of a forced run, so that a forced run buys again, and buys once when it is repeated.
    """
    return _digest(key, str(attempt), *([] if forced_by is None else [forced_by]))


def part_request_id(whole_id: str, start_char: int, end_char: int) -> str:
    """Return the name of the request for one of several parts of a text: 64 hexadecimal digits.

    Where a part lies is in its name, so that a text that is cut in another way, under changed settings, has other requests.

    :param whole_id: as :func:`request_id` names the attempt at the whole object, which has no request under that name.
    """
    return _digest(whole_id, "part", f"{start_char}-{end_char}")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
