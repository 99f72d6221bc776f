"""Which files are written anew: files are small or large by their rows, and the URIs here are numbers in a string."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.table_files import File
from media_embeddings.upkeep.choosing import Sizes, choose_rewrites, cut
from media_embeddings.upkeep.kept_tables import CountedFile

SIZES = Sizes(target=16, most=64)
NAMES = count()


def file(first: int | None, last: int | None, rows: int, month: str = "2026-11") -> CountedFile:
    bounds = [None if bound is None else f"{bound:04}" for bound in (first, last)]
    return CountedFile(File(f"{month}/{next(NAMES)}", rows * 10, {"embedded_month": month}, *bounds), rows)


def chosen(*files: CountedFile) -> list[list[int]]:
    """Return the numbers of the chosen files, by set."""
    return [[files.index(one) for one in each] for each in choose_rewrites(files, SIZES)]


def test_a_table_of_good_files_is_left_alone():
    assert chosen(file(0, 9, 16), file(10, 19, 14), file(20, 29, 8)) == []


def test_small_files_beside_each_other_are_gathered():
    assert chosen(file(0, 9, 1), file(10, 19, 1), file(20, 29, 3)) == [[0, 1, 2]]


def test_a_small_file_alone_between_good_ones_stays():
    assert chosen(file(0, 9, 16), file(10, 19, 1), file(20, 29, 16)) == []


def test_small_files_are_not_gathered_across_a_good_one_since_their_ranges_would_overlap_it():
    assert chosen(file(0, 9, 1), file(10, 19, 16), file(20, 29, 1)) == []


def test_files_whose_ranges_overlap_are_written_anew_together_whatever_their_size():
    assert chosen(file(0, 9, 16), file(5, 19, 16), file(20, 29, 16)) == [[0, 1]]


def test_files_that_share_only_the_object_at_their_border_do_not_overlap():
    assert chosen(file(0, 9, 16), file(9, 9, 16), file(9, 19, 16)) == []


def test_of_more_overlapping_files_than_a_commit_takes_only_the_small_ones_are_gathered():
    large = [file(number, 90 + number, 30) for number in range(3)]

    assert chosen(*large, file(1, 80, 2), file(3, 70, 2)) == [[3, 4]]


def test_very_many_overlapping_files_become_few_runs_that_overlap_only_each_other():
    files = [file(number, 900 + number, 16) for number in range(20)]

    sets = choose_rewrites(files, SIZES)

    assert [len(each) for each in sets] == [4] * 5


def test_a_run_of_good_files_is_not_written_anew_because_of_the_small_runs_beside_it():
    run = [file(100 * number, 100 * number + 99, 16) for number in range(4)]
    nightly = [file(number, 390 + number, 4) for number in range(8)]

    assert chosen(*run, *nightly) == [list(range(4, 12))]


def test_files_of_different_partitions_are_never_in_one_set():
    assert chosen(file(0, 9, 1, "2026-10"), file(0, 9, 1, "2026-11")) == []


def test_a_file_of_which_the_log_does_not_know_the_range_is_written_anew_so_that_it_does():
    assert chosen(file(None, None, 16)) == [[0]]


def test_an_empty_table_has_nothing_to_choose():
    assert chosen() == []


objects = st.dictionaries(st.integers(0, 200), st.integers(1, 4), min_size=1, max_size=40)


def as_file(content: dict[int, int]) -> CountedFile:
    return file(min(content), max(content), sum(content.values()))


def rewritten(contents: dict[str, dict[int, int]], files: list[CountedFile]) -> list[dict[int, int]]:
    """Return the contents of the files that a set becomes, cut as the writer cuts them."""
    together: dict[int, int] = {}
    for one in files:
        for uri, rows in contents[one.file.path].items():
            together[uri] = together.get(uri, 0) + rows
    uris = sorted(together)
    ranges = cut([f"{uri:04}" for uri in uris], [together[uri] for uri in uris], SIZES.target)
    return [{uri: together[uri] for uri in uris if first <= f"{uri:04}" <= last} for first, last in ranges]


@given(st.lists(objects, max_size=12))
def test_sets_are_apart_and_bounded_and_repeating_it_comes_to_rest_with_the_same_rows(given_contents):
    contents = {(one := as_file(content)).file.path: (one, content) for content in given_contents}
    total = sum(sum(content.values()) for content in given_contents)
    for _ in range(8):
        files = [one for one, _ in contents.values()]
        sets = choose_rewrites(files, SIZES)
        if not sets:
            break
        paths = [one.file.path for each in sets for one in each]
        assert len(paths) == len(set(paths))
        for each in sets:
            assert sum(one.rows for one in each) <= SIZES.most
            new = rewritten({path: content for path, (_, content) in contents.items()}, list(each))
            for one in each:
                del contents[one.file.path]
            contents |= {(one := as_file(content)).file.path: (one, content) for content in new}
        assert sum(one.rows for one, _ in contents.values()) == total
    else:
        raise AssertionError("it never comes to rest")
    small = [one for one, _ in contents.values() if one.rows < SIZES.small]
    # What is small after all lies alone between files of good size.
    assert len(small) <= len(contents) - len(small) + 1


@given(st.dictionaries(st.integers(0, 9999), st.integers(1, 50), min_size=1), st.integers(1, 100))
def test_ranges_are_in_order_and_hold_every_object_once_and_no_more_than_a_share_and_an_object(rows, target):
    uris = [f"{uri:04}" for uri in sorted(rows)]
    counts = [rows[uri] for uri in sorted(rows)]
    ranges = cut(uris, counts, target)

    held = [[uri for uri in uris if first <= uri <= last] for first, last in ranges]
    assert [uri for several in held for uri in several] == uris
    for several in held:
        assert sum(rows[int(uri)] for uri in several) <= target + max(counts) or len(several) == 1


def test_no_objects_have_no_ranges():
    assert cut([], [], 10) == []
