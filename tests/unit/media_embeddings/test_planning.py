from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from media_embeddings.identity import canonical_parameters, request_id
from media_embeddings.listing import LISTING_SCHEMA
from media_embeddings.media import MediaType
from media_embeddings.models import model_named
from media_embeddings.parts import Part
from media_embeddings.planning import Purpose, Status, as_dry_run, cut_batches, decide
from media_embeddings.reasons import ReasonCode

MODEL = model_named("marengo-2-7")
PARAMETERS = {media_type: canonical_parameters(MODEL.parameters(media_type, {})) for media_type in MediaType}
PURPOSE = Purpose(tables="s3://vectors/tables", model=MODEL, parameters=PARAMETERS, run_id="run-2")
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
LEDGER_COLUMNS = pa.schema(
    [
        ("media_uri", pa.string()),
        ("media_type", pa.string()),
        ("status", pa.string()),
        ("reason_code", pa.string()),
        ("reason", pa.string()),
        ("attempts", pa.int32()),
        ("etag", pa.string()),
        ("parameters", pa.string()),
        ("request_id", pa.string()),
        ("run_id", pa.string()),
        ("first_seen_at", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class Listed:
    key: str = "a.mp4"
    media_type: MediaType | None = MediaType.VIDEO
    etag: str = "e1"
    size_bytes: int = 1000

    @property
    def row(self):
        return {
            "media_uri": f"s3://films/{self.key}",
            "bucket": "films",
            "key": self.key,
            "media_type": self.media_type,
            "etag": self.etag,
            "size_bytes": self.size_bytes,
            "last_modified": NOON,
            "taken": True,
        }

    def known_as(self, status, reason_code=None, attempts=1, **other):
        return {
            "media_uri": self.row["media_uri"],
            "media_type": self.media_type,
            "status": status,
            "reason_code": reason_code,
            "reason": reason_code and "as it was said",
            "attempts": attempts,
            "etag": self.etag,
            "parameters": PARAMETERS.get(self.media_type),
            "run_id": "run-1",
        } | other


def listing(*objects):
    return pa.Table.from_pylist([one.row for one in objects], schema=LISTING_SCHEMA)


def ledger(*rows):
    return pa.Table.from_pylist(list(rows), schema=LEDGER_COLUMNS)


def test_a_new_object_is_planned_with_its_first_attempt():
    decisions = decide(listing(Listed()), ledger(), PURPOSE)

    (planned,) = decisions.planned
    assert planned.media.uri == "s3://films/a.mp4"
    assert planned.attempt == 1
    assert planned.request_id == request_id(planned.embedding_key, 1)
    assert planned.media.last_modified == NOON


def test_an_embedded_object_is_unchanged():
    one = Listed()
    decisions = decide(listing(one), ledger(one.known_as("embedded")), PURPOSE)

    assert decisions.unchanged == {"video": 1}
    assert (decisions.planned, decisions.settled) == ((), ())


@pytest.mark.parametrize("changed", [{"etag": "e0"}, {"parameters": "{}"}], ids=["content", "parameters"])
def test_changed_content_or_parameters_are_embedded_anew(changed):
    one = Listed()
    decisions = decide(listing(one), ledger(one.known_as("embedded", attempts=4, **changed)), PURPOSE)

    assert [planned.attempt for planned in decisions.planned] == [1]


def test_what_failed_for_a_lasting_reason_is_not_tried_again_until_its_content_changes():
    one = Listed()
    failed = one.known_as("failed", "corrupt")

    (settled,) = decide(listing(one), ledger(failed), PURPOSE).settled
    assert (settled.status, settled.reason.code, settled.is_news) == (
        Status.FAILED,
        ReasonCode.CORRUPT,
        False,
    )
    assert decide(listing(replace(one, etag="e2")), ledger(failed), PURPOSE).planned


def test_what_its_header_has_ruled_out_is_not_looked_at_again():
    one = Listed()
    rejected = one.known_as("rejected", "no_track", attempts=0)

    (settled,) = decide(listing(one), ledger(rejected), PURPOSE).settled
    assert (settled.status, settled.reason.code, settled.is_news) == (Status.REJECTED, ReasonCode.NO_TRACK, False)


@pytest.mark.parametrize(
    "otherwise",
    [{"reads_headers": False}, {"retry_failed": True}, {"release": ("s3://films/*",)}, {"force": True}],
    ids=lambda settings: next(iter(settings)),
)
def test_what_its_header_has_ruled_out_is_looked_at_again_when_the_library_or_a_person_wants_it(otherwise):
    one = Listed()
    rejected = one.known_as("rejected", "corrupt", attempts=0)

    (planned,) = decide(listing(one), ledger(rejected), replace(PURPOSE, **otherwise)).planned
    assert planned.attempt == 1


def test_what_a_limit_has_ruled_out_is_looked_at_again_when_the_limit_is_another():
    one = Listed()
    known = one.known_as("rejected", "too_long", attempts=0)
    same = known | {"reason": "9000.0 s are more than the 7200 s that the model takes of video; split it"}
    other = known | {"reason": "9000.0 s are more than the 3600 s that the model takes of video; split it"}

    assert decide(listing(one), ledger(same), PURPOSE).settled
    assert decide(listing(one), ledger(other), PURPOSE).planned


def test_what_failed_for_a_passing_reason_is_tried_again_under_a_new_attempt():
    one = Listed()
    (planned,) = decide(listing(one), ledger(one.known_as("failed", "service_error", attempts=2)), PURPOSE).planned

    assert planned.attempt == 3


def test_after_the_last_attempt_the_object_is_quarantined():
    one = Listed()
    decisions = decide(listing(one), ledger(one.known_as("failed", "service_error", attempts=3)), PURPOSE)

    (settled,) = decisions.settled
    assert (settled.status, settled.is_news) == (Status.QUARANTINED, True)
    again = decide(listing(one), ledger(one.known_as("quarantined", "service_error", attempts=3)), PURPOSE)
    assert [(two.status, two.is_news) for two in again.settled] == [(Status.QUARANTINED, False)]


def test_a_deferred_attempt_is_gone_on_with_under_the_same_request_id():
    one = Listed()
    first = decide(listing(one), ledger(), PURPOSE).planned[0]
    (planned,) = decide(listing(one), ledger(one.known_as("deferred", "not_finished")), PURPOSE).planned

    assert planned.request_id == first.request_id


def test_a_deferred_attempt_keeps_its_token_also_when_a_forced_run_has_made_it():
    one = Listed()
    deferred = one.known_as("deferred", "deadline_exceeded", attempts=2, request_id="forced-token")

    assert [two.request_id for two in decide(listing(one), ledger(deferred), PURPOSE).planned] == ["forced-token"]


def test_a_forced_run_embeds_everything_again_but_not_what_it_embedded_itself():
    forced = replace(PURPOSE, force=True)
    one = Listed()
    (planned,) = decide(listing(one), ledger(one.known_as("embedded")), forced).planned

    assert planned.request_id == request_id(planned.embedding_key, 2, forced_by="run-2")
    cleared = decide(listing(one), ledger(one.known_as("embedded", attempts=2, run_id="run-2")), forced)
    assert cleared.unchanged == {"video": 1}


def test_a_suffix_that_tells_no_media_type_is_rejected_and_is_news_once():
    one = Listed("minutes.docx", None)
    (settled,) = decide(listing(one), ledger(), PURPOSE).settled

    assert (settled.status, settled.reason.code, settled.is_news) == (
        Status.REJECTED,
        ReasonCode.UNSUPPORTED_MEDIA,
        True,
    )
    (again,) = decide(listing(one), ledger(one.known_as("rejected", "unsupported_media")), PURPOSE).settled
    assert not again.is_news


def test_media_of_a_type_that_the_model_does_not_embed_are_rejected_and_are_news_once():
    purpose = replace(PURPOSE, parameters={name: of for name, of in PARAMETERS.items() if name is not MediaType.VIDEO})
    [first] = decide(listing(Listed()), ledger(), purpose).settled
    known = Listed().known_as("rejected", "unsupported_media", parameters=None)
    [second] = decide(listing(Listed()), ledger(known), purpose).settled

    assert (first.status, first.reason.code) == (Status.REJECTED, ReasonCode.UNSUPPORTED_MEDIA)
    assert first.reason.message == "marengo-2-7 embeds no video"
    assert (first.is_news, second.is_news) == (True, False)


def test_limits_that_the_listing_tells_reject_before_money_is_spent():
    large = Listed("a.png", MediaType.IMAGE, size_bytes=6_000_000)
    empty = Listed("b.mp4", size_bytes=0)
    settled = decide(listing(large, empty), ledger(), PURPOSE).settled

    assert {one.reason.code for one in settled} == {ReasonCode.TOO_LARGE, ReasonCode.EMPTY_OBJECT}
    assert {one.status for one in settled} == {Status.REJECTED}


def test_the_longest_media_come_first_and_a_limit_defers_the_others():
    objects = [Listed(f"{size}.mp4", size_bytes=size) for size in (10, 30, 20)]
    decisions = decide(listing(*objects), ledger(), replace(PURPOSE, limit=2))

    assert [planned.media.size_bytes for planned in decisions.planned] == [30, 20]
    (deferred,) = decisions.settled
    assert (deferred.status, deferred.reason.code, deferred.is_news) == (
        Status.DEFERRED,
        ReasonCode.LIMIT,
        False,
    )


def test_a_dry_run_plans_nothing_and_says_what_it_would_embed():
    decisions = as_dry_run(decide(listing(Listed()), ledger(), replace(PURPOSE, dry_run=True)))

    assert decisions.planned == ()
    assert [one.reason.code for one in decisions.settled] == [ReasonCode.DRY_RUN]


def test_an_object_that_was_deleted_and_came_back_goes_on_with_the_attempt_that_it_had():
    known = Listed().known_as("deleted", attempts=2, request_id="r" * 64)
    [planned] = decide(listing(Listed()), ledger(known), PURPOSE).planned
    assert (planned.attempt, planned.request_id) == (2, "r" * 64)


@pytest.mark.parametrize("status", [("failed", "corrupt"), ("quarantined", "service_error")])
def test_what_failed_for_good_is_tried_again_when_a_person_wants_it(status):
    known = ledger(Listed().known_as(*status, attempts=3))
    for purpose in (replace(PURPOSE, retry_failed=True), replace(PURPOSE, release=("s3://films/*.mp4",))):
        [planned] = decide(listing(Listed()), known, purpose).planned
        assert planned.attempt == 4
    assert decide(listing(Listed()), known, replace(PURPOSE, release=("s3://films/b*",))).planned == ()


def test_a_released_object_gets_a_new_attempt_and_not_the_token_of_the_last_one():
    known = Listed().known_as("deferred", "released", attempts=3, request_id="r" * 64)
    [planned] = decide(listing(Listed()), ledger(known), PURPOSE).planned
    assert planned.attempt == 4
    assert planned.request_id == request_id(planned.embedding_key, 4)


def test_the_ledger_tells_since_when_an_object_has_waited_and_what_for():
    known = Listed().known_as("deferred", "budget", first_seen_at=NOON, request_id="r" * 64)
    [planned] = decide(listing(Listed()), ledger(known), PURPOSE).planned

    assert (planned.first_seen_at, planned.deferred_for) == (NOON, ReasonCode.BUDGET)
    assert (planned.attempt, planned.request_id) == (1, "r" * 64)


def test_what_an_earlier_try_of_this_run_has_left_has_not_waited():
    known = Listed().known_as("deferred", "budget", first_seen_at=NOON, run_id=PURPOSE.run_id)
    [planned] = decide(listing(Listed()), ledger(known), PURPOSE).planned

    assert planned.first_seen_at is None


def test_an_object_that_was_deleted_was_deferred_for_nothing():
    known = Listed().known_as("deleted", "source_gone", request_id="r" * 64)
    [planned] = decide(listing(Listed()), ledger(known), PURPOSE).planned

    assert planned.deferred_for is None


STATUSES = [
    ("embedded", None),
    ("failed", "corrupt"),
    ("failed", "service_error"),
    ("deferred", "not_finished"),
    ("rejected", "too_large"),
    ("quarantined", "service_error"),
]


@settings(max_examples=30, deadline=None)
@given(
    keys=st.sets(st.text(min_size=1, max_size=8), max_size=12),
    known=st.lists(st.sampled_from([None, *STATUSES]), min_size=12, max_size=12),
    sizes=st.lists(st.sampled_from([0, 1, 10**6, 10**10]), min_size=12, max_size=12),
    limit=st.one_of(st.none(), st.integers(1, 5)),
    force=st.booleans(),
    dry_run=st.booleans(),
)
def test_every_listed_object_is_in_exactly_one_place(keys, known, sizes, limit, force, dry_run):
    objects = [Listed(key, size_bytes=size) for key, size in zip(sorted(keys), sizes, strict=False)]
    rows = [
        one.known_as(*status, attempts=2) for one, status in zip(objects, known, strict=False) if status is not None
    ]
    purpose = replace(PURPOSE, limit=limit, force=force, dry_run=dry_run)
    decisions = decide(listing(*objects), ledger(*rows), purpose)
    decisions = as_dry_run(decisions) if dry_run else decisions

    planned = {one.media.uri for one in decisions.planned}
    settled = {one.media_uri for one in decisions.settled}
    assert len(planned) == len(decisions.planned)
    assert len(settled) == len(decisions.settled)
    assert not planned & settled
    assert len(planned) + len(settled) + sum(decisions.unchanged.values()) == len(objects)
    assert len({one.request_id for one in decisions.planned}) == len(planned)


def planned_objects(**numbers):
    objects = [
        Listed(f"{number}{media_type}", MediaType(media_type))
        for media_type, n in numbers.items()
        for number in range(n)
    ]
    return decide(listing(*objects), ledger(), PURPOSE).planned


def test_a_batch_holds_one_media_type_and_says_so_in_its_name():
    batches = cut_batches(planned_objects(text=1, video=3), batch_size=2, max_batches=10)

    assert [(batch.name, len(batch.objects)) for batch in batches] == [
        ("video-001", 2),
        ("video-002", 1),
        ("text-001", 1),
    ]
    assert {one.media.media_type for one in batches[0].objects} == {MediaType.VIDEO}


@settings(max_examples=25, deadline=None)
@given(
    video=st.integers(0, 60),
    text=st.integers(0, 60),
    batch_size=st.integers(1, 9),
    max_batches=st.integers(2, 20),
)
def test_batches_hold_every_object_once_and_never_exceed_their_number(video, text, batch_size, max_batches):
    planned = planned_objects(video=video, text=text)
    batches = cut_batches(planned, batch_size, max_batches)

    assert len(batches) <= max_batches
    assert sorted(one.request_id for batch in batches for one in batch.objects) == sorted(
        one.request_id for one in planned
    )
    assert len({batch.name for batch in batches}) == len(batches)
    if video + text <= max_batches:
        assert all(len(batch.objects) <= batch_size for batch in batches)


def in_parts(planned, requests):
    """Return planned objects of which each takes as many requests as it says."""
    return [
        replace(one, parts=tuple(Part(f"{one.request_id}-{number}") for number in range(several)))
        for one, several in zip(planned, requests, strict=True)
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 20), st.integers(1, 8))
@example([1, 1, 1, 1, 2], 1, 5)
def test_batches_of_texts_in_parts_are_cut_by_requests_and_none_is_torn(requests, batch_size, max_batches):
    planned = in_parts(planned_objects(text=len(requests)), requests)
    batches = cut_batches(planned, batch_size, max_batches)

    assert len(batches) <= max_batches
    assert [one for batch in batches for one in batch.objects] == planned
    if sum(requests) <= batch_size:
        assert len(batches) == 1
    if len(cut_batches(planned, batch_size, 1000)) <= max_batches:
        assert all(
            len(batch.objects) == 1 or sum(len(one.requests) for one in batch.objects) <= batch_size
            for batch in batches
        )


class TestTextsInTables:
    COLUMN = canonical_parameters({"textTruncate": "none", "text_column": "body"})
    READING = replace(PURPOSE, table_parameters=COLUMN)

    @pytest.mark.parametrize("key", ["a.csv", "a.jsonl", "a.CSV"])
    def test_their_column_is_a_part_of_what_is_bought(self, key):
        one = Listed(key, MediaType.TEXT)

        (planned,) = decide(listing(one), ledger(), self.READING).planned

        assert planned.parameters == self.COLUMN

    def test_they_are_unchanged_as_long_as_the_column_is(self):
        one = Listed("a.csv", MediaType.TEXT)
        known = one.known_as("embedded", parameters=self.COLUMN)

        assert decide(listing(one), ledger(known), self.READING).unchanged == {"text": 1}
        other = replace(self.READING, table_parameters=self.COLUMN.replace("body", "title"))
        assert len(decide(listing(one), ledger(known), other).planned) == 1

    def test_other_texts_know_nothing_of_a_column(self):
        one = Listed("a.csv.txt", MediaType.TEXT)
        known = one.known_as("embedded")

        assert decide(listing(one), ledger(known), self.READING).unchanged == {"text": 1}
        (planned,) = decide(listing(one), ledger(), self.READING).planned
        assert planned.parameters == PARAMETERS[MediaType.TEXT]
