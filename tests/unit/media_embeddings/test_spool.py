import pyarrow as pa

from media_embeddings.spool import Spool


def rows(*numbers):
    return pa.table({"number": pa.array(numbers, pa.int64())})


def test_parts_are_read_in_the_order_that_is_asked_for_and_each_in_its_own(tmp_path):
    spool = Spool(tmp_path / "spool")
    for part, numbers in ((2, (5, 6)), (1, (1,)), (3, ()), (2, (7,)), (1, (2, 3)), (4, (9,))):
        spool.write(part, rows(*numbers))

    assert [table["number"].to_pylist() for table in spool.read([1, 3, 2])] == [[1], [2, 3], [5, 6], [7]]


def test_a_spool_into_which_nothing_was_written_is_empty(tmp_path):
    spool = Spool(tmp_path / "spool")
    spool.write(0, rows())

    assert list(spool.read([0])) == []
    assert list(spool.read([])) == []
