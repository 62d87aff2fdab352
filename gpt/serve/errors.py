"""Errors of the API, in the form of OpenAI's: a status and {"error": {"message", "type", "param", "code"}}."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

# The type of the errors of a status. The others below 500 are those of a request that is wrong.
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


class ErrorDetail(BaseModel):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The JSON of an error, for the description of the API."""

    error: ErrorDetail


class ApiError(HTTPException):
    """An error with the status, the message and the names that its response has.

    param: the field of the request that is wrong. code: a name of the error for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers) if headers else None)
        self.message, self.param, self.code = message, param, code

    def body(self) -> dict[str, Any]:
        """Return the JSON of the error."""
        return error_body(self.status_code, self.message, self.param, self.code)

    def response(self) -> JSONResponse:
        """Return the response that tells the error."""
        return JSONResponse(self.body(), self.status_code, self.headers)


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return the JSON of an error."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
