from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.library import Library
from media_embeddings.media import MediaObject, MediaType, Processing
from media_embeddings.models import model_named
from media_embeddings.planning import PlannedObject, cut_batches
from media_embeddings.processing import MediaSource, ProcessingMode, invoked_media_types, processing_of, with_processing

MARENGO = model_named("marengo-3-0")
ALL = frozenset(MediaType)
LIBRARY = {
    "name": "films",
    "sources": ["s3://media/library/"],
    "region": "us-east-1",
    "model": "marengo-3-0",
    "tables": "s3://vectors/tables",
    "work": "s3://vectors/work",
}
# So many bytes are the most of which base64 and the rest of a request are no more than 25,000,000 bytes.
MOST_BYTES = (25_000_000 - 16_384) // 4 * 3


def media(media_type: MediaType, size_bytes: int = 1000) -> MediaObject:
    return MediaObject("media", "library/a", "etag", size_bytes, datetime(2026, 1, 1, tzinfo=UTC), media_type)


def planned(number: int, media_type: MediaType, size_bytes: int = 1000) -> PlannedObject:
    return PlannedObject(media(media_type, size_bytes), f"key-{number}", f"request-{number}", 1, "{}")


def test_images_and_texts_go_through_invoke_model_and_all_else_by_jobs():
    invoked = invoked_media_types(ProcessingMode.AUTO, ALL, MARENGO, MARENGO.model_id)
    found = {one: processing_of(media(one), invoked, MediaSource.S3_LOCATION) for one in MediaType}
    assert found == {
        MediaType.VIDEO: Processing.ASYNC,
        MediaType.AUDIO: Processing.ASYNC,
        MediaType.IMAGE: Processing.SYNC,
        MediaType.TEXT: Processing.SYNC,
    }


def test_with_async_and_where_the_model_has_no_invoke_model_all_goes_by_jobs():
    assert invoked_media_types(ProcessingMode.ASYNC, ALL, MARENGO, MARENGO.model_id) == frozenset()
    assert invoked_media_types(ProcessingMode.AUTO, ALL, MARENGO, None) == frozenset()


@pytest.mark.parametrize(
    ("size_bytes", "source", "expected"),
    [
        (MOST_BYTES, MediaSource.BASE64, Processing.SYNC),
        (MOST_BYTES + 1, MediaSource.BASE64, Processing.ASYNC),
        (MOST_BYTES + 1, MediaSource.S3_LOCATION, Processing.SYNC),
    ],
)
def test_an_image_that_does_not_go_into_a_request_goes_by_a_job(size_bytes, source, expected):
    assert processing_of(media(MediaType.IMAGE, size_bytes), {MediaType.IMAGE}, source) is expected


def test_a_text_is_sent_with_its_request_whichever_way_images_go():
    assert processing_of(media(MediaType.TEXT, 10**8), {MediaType.TEXT}, MediaSource.BASE64) is Processing.SYNC


@given(
    st.lists(st.tuples(st.sampled_from(MediaType), st.integers(1, 2 * MOST_BYTES)), max_size=40),
    st.integers(1, 10),
    st.integers(5, 12),
)
def test_batches_are_of_one_media_type_and_one_way_and_every_name_is_there_once(objects, batch_size, max_batches):
    chosen = with_processing(
        (planned(number, *one) for number, one in enumerate(objects)),
        {MediaType.IMAGE, MediaType.TEXT},
        MediaSource.BASE64,
    )
    batches = cut_batches(chosen, batch_size, max_batches)
    assert sorted(one.request_id for batch in batches for one in batch.objects) == sorted(
        one.request_id for one in chosen
    )
    assert len({batch.name for batch in batches}) == len(batches) <= max_batches
    for batch in batches:
        assert {one.processing for one in batch.objects} == {batch.processing}
        assert {str(one.media.media_type) for one in batch.objects} == {batch.name.rpartition("-")[0]}


def test_batches_of_a_media_type_are_numbered_through_whichever_way_they_go():
    objects = [planned(1, MediaType.IMAGE), planned(2, MediaType.IMAGE, 2 * MOST_BYTES), planned(3, MediaType.IMAGE)]
    chosen = with_processing(objects, {MediaType.IMAGE}, MediaSource.BASE64)
    assert [(one.name, one.processing) for one in cut_batches(chosen, 10, 10)] == [
        ("image-001", Processing.ASYNC),
        ("image-002", Processing.SYNC),
    ]


def test_a_library_that_is_sync_names_what_cannot_be():
    with pytest.raises(ValueError, match="InvokeModel of marengo-3-0 takes no audio and no video") as error:
        Library(**LIBRARY, processing="sync")
    assert error.value.errors()[0]["ctx"]["error"].setting == "processing"
    assert Library(
        **LIBRARY, processing="sync", media_types={"image": [".png"], "text": [".txt"]}
    ).invoked_media_types()


def test_each_model_goes_its_own_way():
    nova = model_named("nova-2-multimodal-384")
    both = Library(**LIBRARY)
    assert both.invoked_media_types() == both.invoked_media_types(model_named("marengo-2-7")) == {"image", "text"}
    assert both.invoked_media_types(nova) == frozenset()
    jobs = Library(**LIBRARY, processing="async")
    assert jobs.invoked_media_types(model_named("marengo-2-7")) == frozenset()


def test_an_id_that_the_library_gives_invoke_model_stands_for_the_models_own():
    elsewhere = LIBRARY | {
        "model": "marengo-2-7",
        "region": "ap-northeast-2",
        "model_regions": {"marengo-2-7": ["ap-northeast-2"]},
    }
    assert Library(**elsewhere).invoked_media_types() == frozenset()
    named = Library(**elsewhere, invoke_model_ids={"marengo-2-7": "apac.twelvelabs.marengo-embed-2-7-v1:0"})
    assert named.invoked_media_types() == {"image", "text"}
