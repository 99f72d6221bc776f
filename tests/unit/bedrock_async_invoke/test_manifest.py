from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_async_invoke.manifest import (
    AsyncInvokeRequest,
    Invocation,
    InvocationStatus,
    ManifestError,
    Outcome,
    batch_name,
    beside,
    format_lines,
    output_folder,
    read_invocations,
    read_requests,
)

texts = st.none() | st.text()


@given(
    st.lists(
        st.builds(Invocation, st.text(), texts, st.sampled_from(Outcome), texts, texts, texts),
        max_size=5,
    )
)
def test_invocations_are_read_as_they_were_written(invocations):
    assert read_invocations(format_lines(invocations), "s3://b/k") == invocations


def test_a_status_is_written_with_the_names_that_readers_know():
    status = InvocationStatus("r", "arn", "Failed", "zu groß", "2026-11-23T01:00:00+00:00", None, "s3://b/o/r/i")
    assert json.loads(format_lines([status])) == {
        "request_id": "r",
        "invocation_arn": "arn",
        "status": "Failed",
        "failure_message": "zu groß",
        "submitted_at": "2026-11-23T01:00:00+00:00",
        "ended_at": None,
        "output_uri": "s3://b/o/r/i",
    }


def test_a_request_needs_no_source_and_may_have_members_of_its_writers_own():
    content = b'{"request_id": "r", "model_input": {}, "output_uri": "s3://b/o", "estimate": 3}\n\n'
    assert read_requests(content, "s3://b/k") == [AsyncInvokeRequest("r", {}, "s3://b/o")]


@pytest.mark.parametrize("line", [b"{", b"[]", b"1", b'{"request_id": "r"}', b'{"outcome": "lost"}'])
def test_a_line_that_can_not_be_read_is_named(line):
    for read in (read_requests, read_invocations):
        with pytest.raises(ManifestError, match="line 2 of s3://b/k can't be read"):
            read(b"\n" + line, "s3://b/k")


@pytest.mark.parametrize(
    ("manifest_uri", "name"),
    [
        ("s3://b/work/runs/r/batches/video-001/requests.jsonl", "video-001"),
        ("s3://b/requests.jsonl", "b"),
        ("requests.jsonl", "requests.jsonl"),
        ("", ""),
    ],
)
def test_a_batch_is_known_by_its_folder(manifest_uri, name):
    assert batch_name(manifest_uri) == name


def test_files_lie_beside_the_manifest():
    assert beside("s3://b/batches/v/requests.jsonl", "statuses.jsonl") == "s3://b/batches/v/statuses.jsonl"


@pytest.mark.parametrize("output_uri", ["s3://b/o/r", "s3://b/o/r/", "s3://b/o/r/abc", "s3://b/o/r/abc/"])
def test_an_output_folder_ends_in_the_invocation_id(output_uri):
    assert output_folder(output_uri, "arn:aws:bedrock:us-east-1:1:async-invoke/abc") == "s3://b/o/r/abc"
