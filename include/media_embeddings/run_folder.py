"""Where the files of one run lie below the work prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass

from media_embeddings.storage import join_uri


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run of one library: ``<work>/runs/<library>/<run>``."""

    work: str
    library: str
    run_id: str

    @property
    def uri(self) -> str:
        """Return the folder's URI; characters that are awkward in keys are replaced in the run id."""
        return join_uri(self.work, "runs", self.library, re.sub(r"[^A-Za-z0-9._=-]+", "-", self.run_id))

    @property
    def listing_uri(self) -> str:
        """Return where the listing lies: Parquet, one row a media object."""
        return join_uri(self.uri, "listing.parquet")

    @property
    def report_uri(self) -> str:
        """Return where the run report lies as JSON."""
        return join_uri(self.uri, "report.json")

    @property
    def report_markdown_uri(self) -> str:
        """Return where the run report lies as Markdown."""
        return join_uri(self.uri, "report.md")

    def plan(self, plan_id: str) -> PlanFolder:
        """Return the folder of the plan with this id."""
        return PlanFolder(join_uri(self.uri, "plans", plan_id))


@dataclass(frozen=True, slots=True)
class PlanFolder:
    """The folder of one plan.

    Its name is made of the plan's content, so that a plan that was cleared and made again from another listing can't
    change the batches that an earlier one has already started.
    """

    uri: str

    @property
    def plan_uri(self) -> str:
        """Return where the plan's summary lies as JSON."""
        return join_uri(self.uri, "plan.json")

    def batch(self, name: str) -> BatchFolder:
        """Return the folder of the batch with this name."""
        return BatchFolder(join_uri(self.uri, "batches", name))


@dataclass(frozen=True, slots=True)
class BatchFolder:
    """The folder of one batch: what is asked for, what Bedrock said, and what became of it."""

    uri: str

    @classmethod
    def of_manifest(cls, manifest_uri: str) -> BatchFolder:
        """Return the folder that a manifest lies in."""
        return cls(manifest_uri.rsplit("/", 1)[0])

    @property
    def name(self) -> str:
        """Return media type and number, for example ``video-001``."""
        return self.uri.rsplit("/", 1)[1]

    @property
    def manifest_uri(self) -> str:
        """Return where the requests lie, one JSON line each, as the start operator reads them."""
        return join_uri(self.uri, "requests.jsonl")

    @property
    def objects_uri(self) -> str:
        """Return where the media objects of the requests lie: Parquet, one row each."""
        return join_uri(self.uri, "objects.parquet")

    @property
    def invocations_uri(self) -> str:
        """Return where the start operator writes what it started, one JSON line a request."""
        return join_uri(self.uri, "invocations.jsonl")

    @property
    def statuses_uri(self) -> str:
        """Return where the sensor writes how the invocations ended, one JSON line each."""
        return join_uri(self.uri, "statuses.jsonl")

    @property
    def outcomes_uri(self) -> str:
        """Return where the merge writes what became of every object of the batch: Parquet, one row each."""
        return join_uri(self.uri, "outcomes.parquet")
