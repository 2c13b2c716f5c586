"""Errors as the OpenAI API words them, with their status codes."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """A request that cannot be answered as it wished.

    Args:
        status: HTTP status code.
        message: What is wrong, and what to do about it.
        param: The field that is wrong.
        code: A word that programs can test for.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def as_dict(self) -> dict[str, dict[str, str | None]]:
        """Return the body of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }


class Busy(ApiError):
    """Everything that may be done at once is being done."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message, code="busy")


class ShuttingDown(ApiError):
    """The server was told to end before there was an answer."""

    def __init__(self) -> None:
        super().__init__(503, "the server is shutting down", code="shutting_down")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def error_response(error: ApiError) -> JSONResponse:
    """Return an error as a response."""
    headers = {"Retry-After": "5"} if error.status == 503 else None
    return JSONResponse(error.as_dict(), status_code=error.status, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Make every error of an application an answer of the same shape."""

    @app.exception_handler(ApiError)
    async def on_api_error(_: Request, error: ApiError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(ClientGone)
    async def on_client_gone(_: Request, __: ClientGone) -> JSONResponse:
        # Nobody reads it; it is what the metrics count (as nginx does).
        return JSONResponse({}, status_code=499)

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}"
        response = error_response(ApiError(error.status_code, message))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return error_response(ApiError(422, f"{where}: {first['msg']}", param=where))

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(ApiError(500, "the server failed; its log says why"))
