"""How the region of a library is reached: the S3 that its table lies in, and the Bedrock that makes query vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import boto3
from botocore.exceptions import ProfileNotFound

from media_embeddings.library import Library
from media_embeddings.search.queries import SearchRefusedError
from media_embeddings.storage import Storage

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient


@dataclass(frozen=True)
class Access:
    """What reaches one library: with its own credentials, in its own region."""

    storage: Storage
    bedrock: Callable[[], BedrockRuntimeClient]
    """Makes a client for ``bedrock-runtime``; called only where a query's vector is asked of it."""


AccessOf: TypeAlias = Callable[[Library], Access]


def as_configured(profiles: Mapping[str, str] | None = None) -> AccessOf:
    """Return access as the AWS SDKs are configured in the environment, in the region of each library.

    :param profiles: by library, the AWS profile that has its credentials or addresses; the environment's for the others.
    :raises SearchRefusedError: when access is asked for with a profile that there is not.
    """

    def access(library: Library) -> Access:
        profile = (profiles or {}).get(library.name)
        try:
            session = boto3.Session(region_name=library.region, profile_name=profile)
        except ProfileNotFound as error:
            raise SearchRefusedError(f"library {library.name} can't be reached: {error}") from error
        return Access(Storage.of_session(session), lambda: session.client("bedrock-runtime"))

    return access
