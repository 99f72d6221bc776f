"""The wire protocol: HTTP requests of an unmodified AWS SDK in, what AWS would answer out (rest-json)."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from .administration import administration_routes
from .connections import NoResponse
from .errors import BedrockError, validation_error
from .faults import Fault, Stage
from .operations import GET, INVOKE, LIST, START, Parameters
from .simulator import Simulator

MAX_BODY_BYTES = 25_000_000
THREADS = 64

_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/,]+/\d{8}/([a-z0-9-]+)/([a-z-]+)/aws4_request")


@dataclass(frozen=True, slots=True)
class Call:
    """One call before it is checked; ``source`` is what a fault may match."""

    operation: str
    parameters: Parameters
    model_id: str = ""
    source: str = ""


ReadCall = Callable[[Request], Awaitable[Call]]


def application(simulator: Simulator) -> Starlette:
    """Return the ASGI application."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        simulator.start()
        yield
        await anyio.to_thread.run_sync(simulator.stop)

    def route(path: str, method: str, operation: str, read: ReadCall, run: Callable[[Parameters], Parameters]) -> Route:
        async def endpoint(request: Request) -> ASGIApp:
            return await answer(simulator, request, operation, read, run)

        return Route(path, _AnyResponse(endpoint), methods=[method])

    operations = simulator.operations
    return Starlette(
        lifespan=lifespan,
        routes=[
            route("/async-invoke", "POST", START, _start_call, operations.start_async_invoke),
            route("/async-invoke", "GET", LIST, _list_call, operations.list_async_invokes),
            route("/async-invoke/{arn:path}", "GET", GET, _get_call, operations.get_async_invoke),
            route("/model/{model_id:path}/invoke", "POST", INVOKE, _invoke_call, operations.invoke_model),
            *administration_routes(simulator),
            Route("/{path:path}", _unknown_operation, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]),
        ],
    )


class _AnyResponse:
    """An endpoint whose answer may be any ASGI application, so also none at all."""

    def __init__(self, endpoint: Callable[[Request], Awaitable[ASGIApp]]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            response = await self._endpoint(Request(scope, receive))
        except ClientDisconnect:
            return
        await response(scope, receive, send)


async def answer(
    simulator: Simulator, request: Request, operation: str, read: ReadCall, run: Callable[[Parameters], Parameters]
) -> ASGIApp:
    """Answer one call, with the faults that strike it."""
    faults: list[Fault] = []
    try:
        _check_authorization(request, simulator)
        call = await read(request)
        faults = simulator.faults.take((Stage.REQUEST, Stage.RESPONSE), operation, call.model_id, call.source)
        if _has(faults, "connection_reset"):
            simulator.store.count_call(operation, "connection_reset")
            return NoResponse(request, reset=True)
        if _has(faults, "no_response"):
            simulator.store.count_call(operation, "no_response")
            await asyncio.sleep(sum(fault.seconds or 0.0 for fault in faults if fault.kind == "no_response"))
            return NoResponse(request, reset=False)
        _raise_injected(faults)
        response = await anyio.to_thread.run_sync(lambda: json_response(run(call.parameters)))
        code = ""
    except BedrockError as error:
        response, code = error_response(error), error.code
    await asyncio.sleep(sum(fault.seconds or 0.0 for fault in faults if fault.kind == "slow_response"))
    if _has(faults, "lost_response"):
        simulator.store.count_call(operation, "lost_response")
        return NoResponse(request, reset=False)
    simulator.store.count_call(operation, code)
    return response


def _has(faults: list[Fault], kind: str) -> bool:
    return any(fault.kind == kind for fault in faults)


def _raise_injected(faults: list[Fault]) -> None:
    for fault in faults:
        if fault.kind == "error":
            raise BedrockError(fault.code, fault.message, fault.retry_after)


def json_response(document: Parameters) -> Response:
    """Return a success."""
    return Response(
        json.dumps(document, separators=(",", ":")),
        media_type="application/json",
        headers={"x-amzn-RequestId": str(uuid.uuid4())},
    )


def error_response(error: BedrockError) -> Response:
    """Return an error as AWS's rest-json protocol has it: the code in a header, the message in the body."""
    return Response(
        json.dumps({"message": error.message}),
        status_code=error.http_status,
        media_type="application/json",
        headers={
            "x-amzn-RequestId": str(uuid.uuid4()),
            "x-amzn-ErrorType": f"{error.code}:http://internal.amazon.com/coral/com.amazon.bedrock/",
            **({} if error.retry_after is None else {"Retry-After": f"{error.retry_after:g}"}),
        },
    )


def _check_authorization(request: Request, simulator: Simulator) -> None:
    """Require what an SDK sends. Signatures are not verified: any credentials will do."""
    authorization = request.headers.get("authorization", "")
    if authorization.startswith("Bearer "):
        return
    match = _CREDENTIAL.match(authorization)
    if match is None:
        raise BedrockError("MissingAuthenticationTokenException", "Missing Authentication Token")
    region, service = match.groups()
    if simulator.settings().check_signing_region and (region, service) != (simulator.region, "bedrock"):
        raise BedrockError(
            "InvalidSignatureException",
            f"Credential should be scoped to a valid region and service: {simulator.region}/bedrock, "
            f"not {region}/{service}.",
        )


async def _body(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        # What is too long is read to its end all the same, so that the client can hear the answer.
        if size <= MAX_BODY_BYTES:
            chunks.append(chunk)
    if size > MAX_BODY_BYTES:
        raise validation_error(
            "1 validation error detected: Value at 'body' failed to satisfy constraint: "
            f"Member must have length less than or equal to {MAX_BODY_BYTES}"
        )
    return b"".join(chunks)


async def _start_call(request: Request) -> Call:
    body = await _body(request)
    try:
        document = await anyio.to_thread.run_sync(json.loads, body)
    except ValueError as error:
        raise BedrockError("SerializationException", "The request body is not valid JSON.") from error
    if not isinstance(document, dict):
        raise BedrockError("SerializationException", "The request body is not a JSON object.")
    return Call(START, document, str(document.get("modelId", "")), _source(document.get("modelInput")))


async def _get_call(request: Request) -> Call:
    return Call(GET, {"invocationArn": request.path_params["arn"]})


async def _list_call(request: Request) -> Call:
    parameters: Parameters = dict(request.query_params)
    for name in ("submitTimeAfter", "submitTimeBefore"):
        if name in parameters:
            parameters[name] = _moment(parameters[name])
    if "maxResults" in parameters:
        try:
            parameters["maxResults"] = int(parameters["maxResults"])
        except ValueError as error:
            raise BedrockError("SerializationException", "maxResults is not a whole number.") from error
    return Call(LIST, parameters)


async def _invoke_call(request: Request) -> Call:
    body = await _body(request)
    model_id = request.path_params["model_id"]
    parameters: Parameters = {"modelId": model_id, "body": body}
    for name, header in (("contentType", "content-type"), ("accept", "accept")):
        if request.headers.get(header):
            parameters[name] = request.headers[header]
    try:
        source = _source(json.loads(body))
    except ValueError:
        # The operation itself says what is wrong with the body.
        source = ""
    return Call(INVOKE, parameters, model_id, source)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BedrockError("SerializationException", f"{text} is not an ISO-8601 timestamp.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _source(model_input: object) -> str:
    """Return the first S3 URI anywhere in a model input, however wrong it may be otherwise."""
    if isinstance(model_input, dict):
        uri = model_input.get("uri")
        if isinstance(uri, str):
            return uri
        return next((found for value in model_input.values() if (found := _source(value))), "")
    if isinstance(model_input, list):
        return next((found for value in model_input if (found := _source(value))), "")
    return ""


async def _unknown_operation(request: Request) -> Response:
    return error_response(
        BedrockError("UnknownOperationException", f"The simulator has no {request.method} {request.url.path}.")
    )
