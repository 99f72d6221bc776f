import pytest

from media_embeddings.search.command import _for_people
from media_embeddings.search.searching import Found, Hit


def hit(**changes):
    values = {
        "score": 0.81237,
        "library": "films",
        "region": "us-east-1",
        "media_uri": "s3://media/a.mp4",
        "media_type": "video",
        "segment_index": 3,
        "start_sec": 12.0,
        "end_sec": 18.5,
        "start_char": None,
        "end_char": None,
        "embedding_option": "visual",
        "embedding_scope": "clip",
    }
    return Hit(**values | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "0.8124\tfilms\tus-east-1\ts3://media/a.mp4\t12-18.5 s\tvisual/clip"),
        (
            {"start_sec": None, "end_sec": None, "embedding_option": None, "embedding_scope": "asset"},
            "0.8124\tfilms\tus-east-1\ts3://media/a.mp4\twhole\tasset",
        ),
        (
            {"start_sec": None, "end_sec": None, "start_char": 0, "end_char": 480, "embedding_option": None},
            "0.8124\tfilms\tus-east-1\ts3://media/a.mp4\tcharacters 0-480\tclip",
        ),
    ],
)
def test_a_hit_says_where_it_lies_what_stretch_it_is_and_how_near(changes, expected):
    found = Found("marengo-3-0", (hit(**changes),), {"films": 12_345})

    assert _for_people(found).splitlines() == [
        expected,
        "1 hit by marengo-3-0; compared with the segments: 12,345 of films",
    ]
