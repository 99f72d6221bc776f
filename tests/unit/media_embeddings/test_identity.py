from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.identity import canonical_parameters, embedding_key, request_id
from media_embeddings.media import MediaObject, MediaType

MEDIA = MediaObject("films", "a.mp4", "e1", 10, datetime(2026, 11, 1, tzinfo=UTC), MediaType.VIDEO)
KEY = embedding_key("s3://vectors/tables", MEDIA, "model", "{}")


def test_the_same_purchase_has_the_same_key_whenever_it_was_listed():
    again = replace(MEDIA, last_modified=datetime(2026, 12, 1, tzinfo=UTC))

    assert embedding_key("s3://vectors/tables/", again, "model", "{}") == KEY


def test_every_part_of_what_is_bought_changes_the_key():
    others = {
        embedding_key("s3://vectors/other", MEDIA, "model", "{}"),
        embedding_key("s3://vectors/tables", replace(MEDIA, bucket="clips"), "model", "{}"),
        embedding_key("s3://vectors/tables", replace(MEDIA, key="b.mp4"), "model", "{}"),
        embedding_key("s3://vectors/tables", replace(MEDIA, etag="e2"), "model", "{}"),
        embedding_key("s3://vectors/tables", replace(MEDIA, size_bytes=11), "model", "{}"),
        embedding_key("s3://vectors/tables", MEDIA, "other", "{}"),
        embedding_key("s3://vectors/tables", MEDIA, "model", '{"a":1}'),
    }

    assert len(others) == 7
    assert KEY not in others


def test_every_attempt_and_every_forced_run_is_a_request_of_its_own():
    requests = [
        request_id(KEY, 1),
        request_id(KEY, 2),
        request_id(KEY, 1, forced_by="r1"),
        request_id(KEY, 1, forced_by="r2"),
    ]

    assert len(set(requests)) == 4
    assert request_id(KEY, 1, forced_by="r1") == requests[2]


@given(
    st.lists(
        st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=2, max_size=2
    )
)
def test_parts_do_not_run_into_each_other(parts):
    left, right = parts
    one = replace(MEDIA, bucket=left, key=right)
    other = replace(MEDIA, bucket=left + right, key="")

    assert right == "" or embedding_key("t", one, "m", "{}") != embedding_key("t", other, "m", "{}")


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.lists(st.text()))))
def test_parameters_have_one_form_whatever_their_order(parameters):
    turned = dict(reversed(parameters.items()))

    assert canonical_parameters(turned) == canonical_parameters(parameters)


def test_a_request_id_is_a_token_that_bedrock_takes():
    token = request_id(KEY, 1)

    assert len(token) == 64
    assert all("!" <= character <= "~" for character in token)
