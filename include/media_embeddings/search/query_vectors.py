"""The vector of a query: made by Bedrock's ``InvokeModel``, or taken from a searched table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from botocore.exceptions import BotoCoreError, ClientError

from media_embeddings.library import Library
from media_embeddings.media import MediaObject, MediaType
from media_embeddings.models.media_source import ContentTooLargeError
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.output_rows import OutputInvalidError
from media_embeddings.results import parse_output
from media_embeddings.search.cosine import Vectors, unit
from media_embeddings.search.queries import LikeQuery, SearchRefusedError

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient

# No tokenizer is published. A word is at least a token, and a token seldom has more bytes than this: beyond either a text
# is over the limit whatever it says; what is below both is for Bedrock to judge.
_MOST_BYTES_A_TOKEN = 64
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp"}


class QueryVectorError(Exception):
    """Bedrock gave no vector for a query; the message has its own words, and what to do."""


def serving(libraries: Sequence[Library], model: EmbeddingModel) -> tuple[Library, str]:
    """Return the first library in whose region ``InvokeModel`` serves the model, and the id that it wants there.

    :raises SearchRefusedError: if there is none.
    """
    for library in libraries:
        if (model_id := library.invoke_model_id(model)) is not None:
            return library, model_id
    regions = ", ".join(sorted({library.region for library in libraries}))
    raise SearchRefusedError(
        f"InvokeModel does not serve {model.name} in {regions}, so there is no vector for a text or an image: search with a "
        "media object that is in the table (--like s3://...), or a library of a region that it is served in"
    )


def vector_of_text(client: BedrockRuntimeClient, model: EmbeddingModel, model_id: str, text: str) -> Vectors:
    """Return the vector of a text, shape (1, dimension).

    :raises SearchRefusedError: if the text is empty or certainly longer than the model takes.
    :raises QueryVectorError: if Bedrock refuses it or can't be asked.
    """
    _refuse_text(text, model)
    return _answer(client, model, model_id, MediaType.TEXT, model.query_input(text))


def vector_of_image(client: BedrockRuntimeClient, model: EmbeddingModel, model_id: str, content: bytes) -> Vectors:
    """Return the vector of an image, shape (1, dimension).

    :raises SearchRefusedError: if the image is empty or larger than the model takes.
    :raises QueryVectorError: if Bedrock refuses it or can't be asked.
    """
    if MediaType.IMAGE not in model.invoke_media_types:
        raise SearchRefusedError(
            f"{model.name} is asked for the vectors of texts only: search with words, or with an image that is in the table "
            "(--like s3://...)"
        )
    suffix = next((suffix for beginning, suffix in _SUFFIXES.items() if content.startswith(beginning)), "")
    media = MediaObject("query", f"query{suffix}", "", len(content), datetime.now(UTC), MediaType.IMAGE)
    if (reason := model.rejection(media)) is not None:
        raise SearchRefusedError(f"the image can't be searched by: {reason.message}")
    parameters = model.parameters(MediaType.IMAGE, {})
    try:
        body = model.model_input(media, parameters, bucket_owner=None, text=None, content=content)
    except ContentTooLargeError as error:
        raise SearchRefusedError(f"the image can't be searched by: {error}") from error
    return _answer(client, model, model_id, MediaType.IMAGE, body)


def vectors_like(query: LikeQuery, rows: pa.Table) -> Vectors:
    """Return the vectors that an object's rows give for a query.

    :param rows: all rows of the object: segment_index, embedding_scope, embedding.
    :raises SearchRefusedError: if there is no such segment, or several and none stands for the whole object.
    """
    if query.segment_index is not None:
        chosen = rows.filter(pc.equal(rows["segment_index"], query.segment_index))
    elif rows.num_rows == 1:
        chosen = rows
    else:
        chosen = rows.filter(pc.equal(rows["embedding_scope"], "asset"))
    if chosen.num_rows == 0:
        numbers = rows["segment_index"]
        wanted = (
            "and none for the whole of it"
            if query.segment_index is None
            else f"and none numbered {query.segment_index}"
        )
        raise SearchRefusedError(
            f"{query.media_uri} has {rows.num_rows} segments, numbered {pc.min(numbers)} to {pc.max(numbers)}, {wanted}: "
            "name one of them (--segment)"
        )
    return unit(np.stack(chosen["embedding"].to_numpy(zero_copy_only=False)))


def _refuse_text(text: str, model: EmbeddingModel) -> None:
    if not text.strip():
        raise SearchRefusedError("the text to search by is empty")
    limits = model.text_limits
    if limits.characters is not None and len(text) > limits.characters:
        raise SearchRefusedError(
            f"the text has {len(text):,} characters and {model.name} takes {limits.characters:,}: shorten it; a query is "
            "never cut in silence"
        )
    if limits.tokens is not None:
        least = max(len(text.split()), -(-len(text.encode()) // _MOST_BYTES_A_TOKEN))
        if least > limits.tokens:
            raise SearchRefusedError(
                f"the text has at least {least:,} tokens and {model.name} takes {limits.tokens:,}: shorten it; a query is "
                "never cut in silence"
            )


def _answer(
    client: BedrockRuntimeClient, model: EmbeddingModel, model_id: str, media_type: MediaType, body: object
) -> Vectors:
    try:
        answer = client.invoke_model(
            modelId=model_id,
            body=json.dumps(body, ensure_ascii=False).encode(),
            contentType="application/json",
            accept="application/json",
        )
        content = answer["body"].read()
    except (BotoCoreError, ClientError) as error:
        raise QueryVectorError(
            f"{client.meta.region_name}'s Bedrock gives no vector of {model.name} for the {media_type}: {error}. Change the "
            "query as it says, or search with a media object that is in the table (--like s3://...), which asks nothing of "
            "Bedrock"
        ) from error
    try:
        rows = parse_output(content, model, media_type)
    except OutputInvalidError as error:
        raise QueryVectorError(f"what InvokeModel answered for {model.name} is no vector: {error}") from error
    return unit(rows.embedding)
