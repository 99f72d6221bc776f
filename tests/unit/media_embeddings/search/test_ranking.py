from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings.search.ranking import Best, Candidate

# Few scores, so that many are equal.
SCORES = st.sampled_from([1.0, 0.5, 0.25, 0.0, -0.5])
SEGMENTS = st.tuples(SCORES, st.sampled_from("abcd"), st.integers(0, 3), st.integers(0, 1))
DISTINCT = st.lists(SEGMENTS, max_size=60, unique_by=lambda one: one[1:])


def candidates(segments):
    return [Candidate(*one) for one in segments]


@settings(deadline=None)
@given(DISTINCT, st.integers(1, 20), st.data())
def test_the_best_are_the_same_in_whatever_parts_and_order_they_are_offered(segments, count, data):
    oracle = sorted(segments, key=lambda one: (-one[0], one[1], one[2], one[3]))[:count]
    best = Best(count)
    rest = data.draw(st.permutations(segments))
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        best.offer(candidates(rest[:size]))
        rest = rest[size:]

    assert best.in_order == tuple(candidates(oracle))


@settings(deadline=None)
@given(DISTINCT, st.integers(1, 20))
def test_what_is_below_the_floor_is_not_among_the_best(segments, count):
    best = Best(count)
    best.offer(candidates(segments))

    assert all(one.score >= best.floor for one in best.in_order)
    assert (best.floor == float("-inf")) == (len(segments) < count)


def test_where_a_row_lies_decides_nothing():
    here = Candidate(0.5, "s3://b/a", 0, 0, file=9, group=9, row=9)
    there = Candidate(0.5, "s3://b/b", 0, 0, file=0, group=0, row=0)
    best = Best(1)
    best.offer([there])
    best.offer([here])

    assert best.in_order == (here,)
