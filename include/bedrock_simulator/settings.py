"""How the simulator behaves where it can be chosen.

A setting marked *unconfirmed* stands for behaviour that no primary source describes; its default is a careful guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .documents import as_object, from_document, to_document


@dataclass(frozen=True, slots=True)
class Settings:
    """The simulator's settings. Times are in seconds; ``None`` means without limit."""

    account_id: str = "123456789012"
    """The account that owns every bucket that ``bucket_owners`` does not name."""

    seconds_per_job: float = 2.0
    """How long a job takes at least, whatever its media."""
    seconds_per_media_second: float = 0.0
    """How long a job takes for each second of media."""
    seconds_per_megabyte: float = 0.0
    """How long a job takes for each 10**6 bytes of its sources; a job takes the greatest of the three."""

    max_in_flight: int = 30
    """The most jobs in progress at once, per model (*unconfirmed*: field reports say about 20)."""
    quota_error: Literal["ThrottlingException", "ServiceQuotaExceededException"] = "ThrottlingException"
    """The answer to a Start above ``max_in_flight`` (*unconfirmed*: both are reported)."""

    invokes_per_second: float | None = None
    """The most InvokeModel calls a second, per model; a second's calls may come at once. Above it the answer is a
    ThrottlingException (*unconfirmed*: AWS publishes no figure for these models)."""

    extra_regions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Regions in which StartAsyncInvoke serves a model, by its id, beside those of its card (*unconfirmed*: older pages
    have Marengo 2.7 in ap-northeast-2)."""
    bucket_regions: dict[str, str] = field(default_factory=dict)
    """The region of a bucket, by its name; the others are in the simulator's region."""
    bucket_owners: dict[str, str] = field(default_factory=dict)
    """The account of a bucket, by its name; the others belong to ``account_id``."""
    bucket_owner_required: bool = False
    """Whether an S3 location must name its ``bucketOwner`` (*unconfirmed*)."""
    check_signing_region: bool = True
    """Whether a request signed for another region is refused."""

    token_lifetime_seconds: float | None = None
    """How long a clientRequestToken is remembered (*unconfirmed*)."""
    token_reuse: Literal["ConflictException", "ValidationException"] = "ConflictException"  # noqa: S105 (no password)
    """The answer to a known token with another body (*unconfirmed*)."""
    unknown_invocation: Literal["ValidationException", "ResourceNotFoundException"] = "ValidationException"
    """The answer to GetAsyncInvoke of an unknown ARN (*unconfirmed*)."""
    job_retention_seconds: float | None = None
    """How long Get and List know a job after its submission (*unconfirmed*)."""
    default_page_size: int = 100
    """The page size of ListAsyncInvokes without ``maxResults`` (*unconfirmed*)."""
    list_delay_seconds: float = 0.0
    """How long after its submission a job first shows in ListAsyncInvokes (*unconfirmed*)."""

    enforce_end_of_life: bool = False
    """Whether a model is gone after its end-of-life date."""
    enforce_media_envelope: bool = False
    """Whether TwelveLabs' own duration and resolution limits hold (*unconfirmed* for Bedrock)."""
    image_formats: tuple[str, ...] = ("JPEG", "PNG")
    """The image formats that are taken, by Pillow's names (*unconfirmed* for Bedrock)."""

    absent_track: Literal["Completed", "Failed"] = "Completed"
    """How a job ends when its file has none of the tracks that were asked for (*unconfirmed*)."""
    row_order: Literal["by_time", "by_option", "shuffled"] = "by_time"
    """The order of the rows in output.json (*unconfirmed*)."""
    segment_offsets: Literal["absolute", "relative"] = "absolute"
    """Whether startSec and endSec count from the file's start or from the requested start (*unconfirmed*)."""
    options_share_segments: bool = False
    """Whether Marengo 3.0 cuts sound where it cuts pictures under dynamic segmentation (*unconfirmed*)."""
    default_embedding_scope: tuple[Literal["clip", "asset"], ...] = ("clip", "asset")
    """Marengo 3.0's embeddingScope when the request has none (*unconfirmed*)."""
    asset_rows_have_times: bool = True
    """Whether Marengo 3.0's asset rows carry startSec and endSec (*unconfirmed*)."""
    write_error_file: bool = False
    """Whether a failed job leaves an error.txt next to its manifest (*unconfirmed*)."""

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        for name in (
            *("seconds_per_job", "seconds_per_media_second", "seconds_per_megabyte"),
            *("max_in_flight", "list_delay_seconds"),
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"Settings.{name} must not be negative.")
        if self.invokes_per_second is not None and self.invokes_per_second <= 0:
            raise ValueError("Settings.invokes_per_second must be greater than 0, or null.")
        if not 1 <= self.default_page_size <= 1000:
            raise ValueError("Settings.default_page_size must be 1 to 1000.")

    def changed(self, changes: object) -> Settings:
        """Return these settings with the members of a JSON object replaced.

        :raises ValueError: if a member is unknown or has a wrong type or value.
        """
        return from_document(Settings, {**self.document(), **as_object(changes, "Settings")})

    def document(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return to_document(self)

    def owner_of(self, bucket: str) -> str:
        """Return the account that owns the bucket."""
        return self.bucket_owners.get(bucket, self.account_id)
