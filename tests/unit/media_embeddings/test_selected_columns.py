"""What is told of whole columns of keys is what is told of each key."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings.library import DEFAULT_SUFFIXES, Selection
from media_embeddings.media import MediaType
from media_embeddings.selected_columns import ColumnSelection

KEYS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text("ab./\nİ", max_size=10),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "/", "a/", "a/b", "raw/a", ".", "ß."]),
        st.sampled_from(["x", "", "."]),
        st.sampled_from([".MP4", ".mp4", ".Wav", ".jpg", ".tar.gz", ".mp4\n", "/", ""]),
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    keys=st.lists(KEYS, max_size=20),
    media_types=st.sets(st.sampled_from(list(MediaType)), min_size=1),
    include=st.sampled_from([(), ("*.mp4",), ("a/", "!a/b*"), ("/a*",)]),
    exclude=st.sampled_from([(), ("*.wav",), ("raw/",)]),
    wanted=st.none() | st.sets(st.sampled_from(list(MediaType)), min_size=1),
    base=st.sampled_from(["", "library/", "lib", "ä/"]),
)
def test_columns_are_selected_as_their_keys_are_one_by_one(keys, media_types, include, exclude, wanted, base):
    selection = Selection({name: DEFAULT_SUFFIXES[name] for name in media_types}, include, exclude)
    columns = ColumnSelection(selection, base, wanted)
    whole = [f"{base}{key}" for key in keys]
    halves = pa.chunked_array([whole[: len(whole) // 2], whole[len(whole) // 2 :]], pa.string())

    told = columns.media_types(halves)

    assert told.to_pylist() == [selection.media_type(key) for key in whole]
    assert columns.taken(halves, told).to_pylist() == [
        (wanted is None or selection.media_type(key) in wanted) and selection.takes(key.removeprefix(base).lstrip("/"))
        for key in whole
    ]
