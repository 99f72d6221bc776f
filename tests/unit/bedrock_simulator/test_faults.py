"""Which calls a fault strikes, and what output faults do."""

from __future__ import annotations

import json

import pytest

from bedrock_simulator.faults import KINDS, Fault, FaultBook, Stage
from bedrock_simulator.models.model import json_content
from bedrock_simulator.output_faults import struck_document, struck_files

OPTIONS = ("visual-text", "audio", "visual-text")
DOCUMENT = {
    "data": [
        {"embedding": [0.5, 0.5, 0.5, 0.5], "startSec": index, "embeddingOption": option}
        for index, option in enumerate(OPTIONS)
    ]
}


def book(*faults: Fault) -> FaultBook:
    result = FaultBook(None, lambda _: None, lambda: 0)
    result.replace(faults)
    return result


def strikes(standing: FaultBook, operation: str = "StartAsyncInvoke", source: str = "s3://media/a/b.mp4") -> bool:
    return bool(standing.take(Stage, operation, "twelvelabs.marengo-embed-3-0-v1:0", source))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("failed"), True),
        (Fault("failed", source="s3://media/*"), True),
        (Fault("failed", source="a/*.mp4"), True),
        (Fault("failed", source="*.mp3"), False),
        (Fault("error", operation="StartAsyncInvoke"), True),
        (Fault("error", operation="*AsyncInvoke"), True),
        (Fault("error", operation="ListAsyncInvokes"), False),
        (Fault("error", model="*marengo-embed-3*"), True),
        (Fault("error", model="*marengo-embed-2*"), False),
        (Fault("error", rate=0.0), False),
        (Fault("error", count=0), False),
    ],
)
def test_a_fault_strikes_what_it_matches(fault, expected):
    assert strikes(book(fault)) is expected


def test_a_fault_strikes_after_and_as_often_as_it_says():
    standing = book(Fault("failed", after=2, count=3))
    assert [strikes(standing) for _ in range(8)] == [False, False, True, True, True, False, False, False]


def test_calls_that_do_not_match_are_not_counted():
    standing = book(Fault("failed", source="*.mp4", count=1))
    assert not strikes(standing, source="s3://media/a.png")
    assert strikes(standing)


def test_a_rate_is_kept_and_can_be_repeated():
    runs = []
    for _ in range(2):
        standing = book(Fault("failed", rate=0.25, seed=3))
        runs.append([strikes(standing) for _ in range(2000)])
    assert runs[0] == runs[1]
    assert sum(runs[0]) == pytest.approx(500, abs=80)


def test_stages_are_taken_apart():
    standing = book(Fault("failed", count=1), Fault("error", count=1))
    assert [fault.kind for fault in standing.take([Stage.REQUEST], "GetAsyncInvoke", "", "")] == ["error"]
    assert [fault.kind for fault in standing.take([Stage.JOB], "StartAsyncInvoke", "", "")] == ["failed"]


def test_a_book_is_saved_and_opened_again():
    saved: list = []
    first = FaultBook(None, saved.append, lambda: 0)
    first.replace([Fault("failed", count=2)])
    first.add([Fault("stuck", source="x")])
    assert strikes(first)
    again = FaultBook(json.loads(json.dumps(saved[-1])), saved.append, lambda: 0)
    assert again.document() == first.document()
    assert [strikes(again), strikes(again)] == [True, False]


@pytest.mark.parametrize("wrong", [{"kind": "none"}, {"kind": "error", "code": "x"}, {"kind": "failed", "rate": 2.0}])
def test_a_fault_that_can_not_strike_is_refused(wrong):
    with pytest.raises(ValueError, match=r"fault|error code"):
        Fault(**wrong)


def output_content(document: dict, faults: list[Fault]) -> bytes | None:
    content = json_content(struck_document(document, faults))
    return struck_files({"output.json": content}, "output.json", faults).get("output.json")


def test_without_faults_the_output_is_what_it_is():
    assert json.loads(output_content(DOCUMENT, [])) == DOCUMENT


@pytest.mark.parametrize(
    "kind", [kind for kind, stage in KINDS.items() if stage is Stage.OUTPUT and kind != "output_late"]
)
def test_every_output_fault_changes_the_output_and_not_its_origin(kind):
    before = json.dumps(DOCUMENT)
    assert output_content(DOCUMENT, [Fault(kind)]) != output_content(DOCUMENT, [])
    assert json.dumps(DOCUMENT) == before


def test_output_faults_do_what_they_are_named_for():
    assert output_content(DOCUMENT, [Fault("output_missing")]) is None
    wrong = json.loads(output_content(DOCUMENT, [Fault("wrong_dimension", dimension=7)]))
    assert {len(row["embedding"]) for row in wrong["data"]} == {7}
    infinite = json.loads(output_content(DOCUMENT, [Fault("non_finite", value="-Infinity")]))
    assert [row["embedding"][0] for row in infinite["data"]] == [0.5, float("-inf"), 0.5]
    empty = output_content({"data": []}, [Fault("non_finite")])
    assert json.loads(empty) == {"data": []}


def test_a_fault_strikes_only_in_its_stretch_of_time_also_after_a_restart():
    now, saved = [0], []
    book = FaultBook(None, saved.append, lambda: now[0])
    book.replace([Fault("failed", from_seconds=10, until_seconds=20)])

    def strikes(subject: FaultBook) -> bool:
        return bool(subject.take((Stage.JOB,), "StartAsyncInvoke", "m", ""))

    found = []
    for seconds in (0, 9.9, 10, 19.9, 20):
        now[0] = round(1000 * seconds)
        again = FaultBook(json.loads(json.dumps(saved[-1])), saved.append, lambda: now[0])
        found.append((strikes(book), strikes(again)))
    assert found == [(False, False), (False, False), (True, True), (True, True), (False, False)]
