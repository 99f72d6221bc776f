from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from bedrock_async_invoke.invoker import with_content
from media_embeddings.media import MediaObject, MediaType
from media_embeddings.models import model_named
from media_embeddings.request_bodies import request_body

IMAGE = MediaObject("media", "a.png", "etag", 1000, datetime(2026, 1, 1, tzinfo=UTC), MediaType.IMAGE)


@pytest.mark.parametrize("name", ["marengo-2-7", "marengo-3-0"])
def test_a_place_for_the_content_is_named_and_filled_in_as_the_model_would(name):
    model = model_named(name)
    body = request_body(model, IMAGE, {}, None, text=None, with_content=True)
    assert body.content_member is not None
    assert base64.b64encode(b"the content of the source").decode() not in str(body.model_input)
    filled = with_content(body.model_input, body.content_member, b"a picture")
    assert filled == model.model_input(IMAGE, {}, bucket_owner=None, text=None, content=b"a picture")


def test_a_complete_body_has_no_place():
    model = model_named("marengo-3-0")
    body = request_body(model, IMAGE, {}, "123456789012", text=None, with_content=False)
    assert body.content_member is None
    assert body.model_input == model.model_input(IMAGE, {}, bucket_owner="123456789012", text=None)
