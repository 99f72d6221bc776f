"""The errors that Bedrock's runtime API answers with, each with its HTTP status."""

from __future__ import annotations

HTTP_STATUSES = {
    "AccessDeniedException": 403,
    "ConflictException": 400,
    "InternalServerException": 500,
    "ModelErrorException": 424,
    "ModelNotReadyException": 429,
    "ModelTimeoutException": 408,
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 400,
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "ValidationException": 400,
    # What AWS answers before a service sees the request.
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "SerializationException": 400,
    "UnknownOperationException": 404,
    "ExpiredTokenException": 403,
    "UnrecognizedClientException": 403,
}


class BedrockError(Exception):
    """An error answer of the API.

    ``code`` is one of :data:`HTTP_STATUSES`. The statuses are those of botocore's service model of ``bedrock-runtime``.
    """

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def http_status(self) -> int:
        """The HTTP status that goes with the code."""
        return HTTP_STATUSES[self.code]


def validation_error(message: str) -> BedrockError:
    """Return a ``ValidationException`` (400)."""
    return BedrockError("ValidationException", message)
