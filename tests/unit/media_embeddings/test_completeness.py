from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings.completeness import Judgement, judge
from media_embeddings.media import MediaType
from media_embeddings.models import model_named
from media_embeddings.models.segments import SegmentRules, Track
from media_embeddings.reasons import ReasonCode
from media_embeddings.results import SegmentRows

RULES = SegmentRules(
    options={"visual-text": Track.PICTURE, "visual-image": Track.PICTURE, "audio": Track.SOUND}, start_sec=0.0
)
Row = tuple[str, str, float | None, float | None]


def output(*rows: Row, vectors: np.ndarray | None = None) -> SegmentRows:
    options, scopes, starts, ends = zip(*rows, strict=True)
    return SegmentRows(
        embedding=np.full((len(rows), 4), 0.5, np.float32) if vectors is None else vectors,
        start_sec=starts,
        end_sec=ends,
        embedding_option=options,
        embedding_scope=scopes,
    )


def clips(option: str, *bounds: float) -> list[Row]:
    return [(option, "clip", start, end) for start, end in pairwise(bounds)]


def whole(*bounds: float, but: str = "") -> list[Row]:
    return [row for option in RULES.options if option != but for row in clips(option, *bounds)]


def violation(rows: list[Row], rules: SegmentRules = RULES) -> str:
    found = judge(output(*rows), rules)
    assert found.violation is not None
    assert found.violation.code is ReasonCode.OUTPUT_INCOMPLETE
    return found.violation.message


def test_an_output_that_holds_what_was_asked_for_is_complete():
    assert judge(output(*whole(0, 5, 10, 13.5)), RULES) == Judgement()


def test_a_file_without_sound_has_no_rows_of_it_which_is_recorded():
    assert judge(output(*whole(0, 5, 10, but="audio")), RULES) == Judgement(absent_options=("audio",))


def test_of_the_options_of_one_track_none_may_be_missing():
    assert "none of visual-image" in violation(whole(0, 5, but="visual-image"))


def test_a_gap_is_named_with_its_times():
    assert "nothing between 5 s and 9 s" in violation(
        [*clips("audio", 0, 5), *clips("audio", 9, 12), *whole(0, 12, but="audio")]
    )


def test_a_gap_within_the_tolerance_is_none():
    rows = [*clips("audio", 0, 5), *clips("audio", 5.9, 12), *whole(0, 12, but="audio")]
    assert judge(output(*rows), RULES).violation is None


def test_two_segments_for_the_same_time_are_one_too_many():
    rows = [*clips("audio", 0, 8), *clips("audio", 5, 12), *whole(0, 12, but="audio")]
    assert "two segments for what is between 5 s and 8 s" in violation(rows)


def test_it_begins_where_it_was_asked_to_whichever_way_times_are_counted():
    rules = replace(RULES, start_sec=30.0)
    for begin in (0, 30):
        assert judge(output(*whole(begin, begin + 5)), rules).violation is None
    assert "begins at 12 s" in violation(whole(12, 20), rules)


def test_it_does_not_go_on_after_the_requested_end():
    assert "goes on until 20 s" in violation(whole(0, 10, 20), replace(RULES, end_sec=12.0))


def test_segments_of_a_fixed_length_have_it_but_the_last():
    rules = replace(RULES, fixed_sec=5.0)
    assert judge(output(*whole(0, 5, 10, 12)), rules).violation is None
    assert "from 0 s to 8 s" in violation(whole(0, 8, 13), rules)


def test_pictures_end_together():
    rows = [*clips("visual-text", 0, 5, 10), *clips("visual-image", 0, 5), *clips("audio", 0, 10)]
    assert "visual-image at 5 s" in violation(rows)


def test_speech_may_have_gaps_and_may_be_absent():
    rules = SegmentRules(options={"visual": Track.PICTURE, "transcription": Track.SPEECH})
    rows = [*clips("visual", 0, 5, 10), ("transcription", "clip", 1.0, 2.0), ("transcription", "clip", 7.0, 8.0)]
    assert judge(output(*rows), rules) == Judgement()
    assert judge(output(*clips("visual", 0, 10)), rules) == Judgement(absent_options=("transcription",))


def test_each_option_has_one_row_of_the_whole_where_that_was_asked_for():
    rules = SegmentRules(options={"visual": Track.PICTURE}, scopes=frozenset({"clip", "asset"}))
    asset: Row = ("visual", "asset", None, None)
    assert judge(output(*clips("visual", 0, 5), asset), rules) == Judgement()
    assert "0 rows of the whole asset" in violation(clips("visual", 0, 5), rules)
    assert "no rows of clips" in violation([asset], rules)


def test_an_image_or_a_text_has_one_row():
    one: Row = ("", "asset", None, None)
    assert judge(output(one), SegmentRules()) == Judgement()
    assert "there are 2 rows" in violation([one, one], SegmentRules())


@pytest.mark.parametrize("factor", [0.0, 1e-6, 1e6])
def test_a_vector_that_says_nothing_is_invalid(factor):
    vectors = np.full((1, 4), factor, np.float32)
    found = judge(output(("", "asset", None, None), vectors=vectors), SegmentRules()).violation
    assert found is not None
    assert found.code is ReasonCode.OUTPUT_INVALID


@st.composite
def ideal_outputs(draw):
    """Rows as a segmenter makes them that cuts each track where it likes, without gaps."""
    name = draw(st.sampled_from(["marengo-2-7", "marengo-3-0"]))
    media_type = draw(st.sampled_from([MediaType.VIDEO, MediaType.AUDIO]))
    model = model_named(name)
    rules = model.segment_rules(media_type, model.parameters(media_type, {}))
    duration = draw(st.floats(3, 200))
    cuts = {
        track: sorted({0.0, duration, *draw(st.lists(st.floats(0.5, 200).map(lambda x: x % duration), max_size=8))})
        for track in Track
    }
    silent = draw(st.booleans()) and media_type is MediaType.VIDEO
    rows: list[Row] = []
    for option, track in rules.options.items():
        if silent and track in (Track.SOUND, Track.SPEECH):
            continue
        rows += clips(option, *cuts[track])
        if "asset" in rules.scopes:
            rows.append((option, "asset", 0.0, duration))
    return rules, draw(st.permutations(rows))


@settings(max_examples=150, deadline=None)
@given(ideal_outputs())
def test_what_an_ideal_segmenter_makes_is_never_refused(made):
    rules, rows = made
    assert judge(output(*rows), rules).violation is None


@settings(max_examples=100, deadline=None)
@given(
    cuts=st.lists(st.floats(1.5, 10), min_size=3, max_size=12),
    number=st.integers(1, 10),
    option=st.sampled_from(list(RULES.options)),
)
def test_a_missing_segment_in_the_middle_is_always_noticed(cuts, number, option):
    bounds = [0.0, *np.cumsum(cuts).tolist()]
    rows = whole(*bounds)
    mine = [row for row in rows if row[0] == option]
    dropped = mine[1 + number % (len(mine) - 2)]
    assert "nothing between" in violation([row for row in rows if row != dropped])
