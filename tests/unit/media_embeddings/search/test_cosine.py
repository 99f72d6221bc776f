import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from media_embeddings.search.cosine import exact_cosines, margin, quick_cosines, unit

NUMBERS = st.floats(-100, 100, width=32)
MANY, FEW = st.integers(1, 30), st.integers(1, 3)
ANY_NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


def vectors(numbers, *, rows=MANY, dimension=8):
    return rows.flatmap(lambda count: some.arrays(np.float32, (count, dimension), elements=numbers))


@settings(deadline=None)
@given(vectors(NUMBERS), vectors(NUMBERS, rows=FEW))
def test_the_exact_cosine_is_that_of_the_textbook(rows, queries):
    assume((np.abs(queries).max(axis=1) > 1e-3).all())
    queries = unit(queries)
    for row, cosine in zip(rows.astype(np.float64), exact_cosines(rows, queries), strict=True):
        if not row.any():
            assert cosine == -np.inf
            continue
        expected = max(
            row @ query / np.linalg.norm(row) / np.linalg.norm(query) for query in queries.astype(np.float64)
        )
        assert cosine == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(vectors(ANY_NUMBERS), vectors(ANY_NUMBERS, rows=FEW))
def test_the_quick_cosine_is_within_the_margin_whatever_the_vectors_lengths(rows, queries):
    assume(queries.any(axis=1).all())
    queries = unit(queries)
    quick, exact = quick_cosines(rows, queries).astype(np.float64), exact_cosines(rows, queries)

    with np.errstate(invalid="ignore"):
        assert ((quick == exact) | (np.abs(quick - exact) <= margin(rows.shape[1]))).all()


@pytest.mark.parametrize("dimension", [512, 1024, 3072])
def test_the_margin_holds_for_vectors_as_long_as_the_models(dimension):
    random = np.random.default_rng(1)
    rows = random.normal(size=(500, dimension)).astype(np.float32)
    rows[:100] = np.abs(rows[:100])
    queries = unit(np.abs(random.normal(size=(2, dimension))))

    assert np.abs(quick_cosines(rows, queries) - exact_cosines(rows, queries)).max() < margin(dimension)


def test_equal_vectors_have_equal_scores_wherever_they_stand():
    random = np.random.default_rng(2)
    rows = random.normal(size=(1001, 512)).astype(np.float32)
    rows[::7] = rows[0]
    query = unit(random.normal(size=(1, 512)))

    alone = exact_cosines(rows[:1], query)
    assert set(exact_cosines(rows, query)[::7]) == set(alone)
    assert set(exact_cosines(rows[3:], query)[4::7]) == set(alone)


@pytest.mark.parametrize("wrong", [[[0.0, 0.0]], [[np.nan, 1.0]], [[np.inf, 1.0]], [[1.0, 0.0], [0.0, 0.0]]])
def test_a_query_without_a_direction_is_refused(wrong):
    with pytest.raises(ValueError, match="finite numbers, and not only zeros"):
        unit(np.array(wrong))
