"""Tells what an error of Bedrock or S3 means for the request that met it."""

from __future__ import annotations

from enum import StrEnum

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    TokenRetrievalError,
)


class Meaning(StrEnum):
    """What an error means for the call that met it."""

    THROTTLED = "throttled"
    """There is no room now; the request is as good as it was."""
    REFUSED = "refused"
    """The request itself is refused."""
    UNAVAILABLE = "unavailable"
    """No answer can be relied on: the call may or may not have had its effect."""
    UNAUTHENTICATED = "unauthenticated"
    """The credentials are expired or unknown: nothing has happened, and no request is to blame."""


# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_StartAsyncInvoke.html lists the errors, and
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html those of a model that is not ready.
_THROTTLED = frozenset(
    {"ThrottlingException", "ServiceQuotaExceededException", "TooManyRequestsException", "ModelNotReadyException"}
)
_REFUSED = frozenset({"ValidationException", "AccessDeniedException", "ConflictException", "ResourceNotFoundException"})
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html, and the names that AWS's front ends use.
_UNAUTHENTICATED = frozenset(
    {
        "ExpiredTokenException",
        "ExpiredToken",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
    }
)
# aiohttp's, by its name, so that nobody has to import it who makes no such call: no connection could be made at all.
_NOT_CONNECTED = "ClientConnectorError"
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError)


class AsyncInvokeError(Exception):
    """A call failed; ``meaning`` says what that means, ``code`` is AWS's own error code or the class of the failure.

    ``retry_after`` are the seconds that the service asks to wait, None where it asks nothing. ``is_lost`` says whether the
    call was sent and no answer came, so that it may have had its effect.
    """

    def __init__(
        self,
        meaning: Meaning,
        code: str,
        message: str,
        retry_after: float | None = None,
        *,
        is_lost: bool = False,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.meaning, self.code, self.message, self.retry_after = meaning, code, message, retry_after
        self.is_lost = is_lost


def explain(error: Exception) -> AsyncInvokeError:
    """Return what an error of botocore means.

    An error that is neither throttling nor a refusal is one of which nothing is known, so it counts as unavailable: a
    request must not be failed, nor started a second time, on account of an answer that was not understood.
    """
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", "Unknown"))
        message = str(error.response.get("Error", {}).get("Message", error))
        return AsyncInvokeError(_MEANINGS.get(code, Meaning.UNAVAILABLE), code, message, _retry_after(error))
    if isinstance(error, _NO_CREDENTIALS):
        return AsyncInvokeError(Meaning.UNAUTHENTICATED, type(error).__name__, str(error))
    # Parameters that botocore itself refuses never reach Bedrock.
    if isinstance(error, ParamValidationError):
        return AsyncInvokeError(Meaning.REFUSED, type(error).__name__, str(error))
    return AsyncInvokeError(Meaning.UNAVAILABLE, type(error).__name__, str(error), is_lost=_may_have_been_sent(error))


def _may_have_been_sent(error: Exception) -> bool:
    """Return whether a call that had no answer may have reached the service."""
    if isinstance(error, ConnectTimeoutError):
        return False
    # aiobotocore calls a connection so that was reset as well as one that could not be made.
    cause = error.kwargs.get("error") if isinstance(error, EndpointConnectionError) else None
    return not any(one.__name__ == _NOT_CONNECTED for one in type(cause).__mro__)


_MEANINGS = {
    **dict.fromkeys(_THROTTLED, Meaning.THROTTLED),
    **dict.fromkeys(_REFUSED, Meaning.REFUSED),
    **dict.fromkeys(_UNAUTHENTICATED, Meaning.UNAUTHENTICATED),
}


def _retry_after(error: ClientError) -> float | None:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        # It may also be a date, which no AWS service is known to send.
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None
