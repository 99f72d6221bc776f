"""Checks that a library's buckets are in its region: Bedrock reads and writes only there.

https://docs.twelvelabs.io/docs/cloud-partner-integrations/amazon-bedrock/create-embeddings
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from media_embeddings.library import Library
from media_embeddings.storage import error_code, split_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_REGION_HEADER = "x-amz-bucket-region"
_DENIED = frozenset({"403", "AccessDenied"})


class WrongRegionError(Exception):
    """A bucket is in another region than the library."""


def check_bucket_regions(client: S3Client, library: Library) -> tuple[str, ...]:
    """Ask for the region of each bucket of a library; return a notice for each whose region may not be asked for.

    S3 says the region also where it denies the rest (``x-amz-bucket-region``); other S3 servers say none. What else is
    wrong with a bucket is left to those who read or write it.

    :raises WrongRegionError: naming the setting, both regions, and what to do.
    """
    places: dict[str, tuple[str, str]] = {}
    for setting, uri in (*(("sources", source) for source in library.sources), *library.written_places):
        places.setdefault(split_uri(uri)[0], (setting, uri))
    notices = []
    for bucket, (setting, uri) in places.items():
        region, is_denied = _region_of(client, bucket)
        if region is not None and region != library.region:
            raise WrongRegionError(
                f"library {library.name}: {setting}: {uri} is in a bucket in {region}, the library's region is "
                f"{library.region}; Bedrock reads and writes only buckets of the model's region. Nothing was changed: "
                f"correct {setting} or region, or give what lies in {region} a library of its own"
            )
        if region is None and is_denied:
            notices.append(
                f"{setting}: the region of bucket {bucket} can't be told; allow s3:ListBucket on it, so that one in another "
                "region is found before anything is submitted"
            )
    return tuple(notices)


def _region_of(client: S3Client, bucket: str) -> tuple[str | None, bool]:
    """Return a bucket's region, None where S3 does not say it, and whether that is for lack of permission."""
    try:
        return client.head_bucket(Bucket=bucket).get("BucketRegion") or None, False
    except ClientError as error:
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return headers.get(_REGION_HEADER) or None, error_code(error) in _DENIED
    except BotoCoreError:
        # Whoever reads or writes the bucket next says so, and is tried again.
        return None, False
