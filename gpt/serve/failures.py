"""Exceptions of the rest of the program, as errors of the API."""

from gpt.errors import UserError
from gpt.generation import BrokenModelError
from gpt.serve.errors import ApiError
from gpt.serve.scheduler import QueueFull, SchedulerClosed

RETRY_SECONDS = "1"
# A client would otherwise ask again for what takes too long, or fails each time. OpenAI's client reads this header.
NO_RETRY = {"X-Should-Retry": "false"}


def as_api_error(error: UserError) -> ApiError:
    """Return the error of the API: 429, 503, 500 for a broken model, or else 400 for what the client can correct."""
    message = f"{str(error).removesuffix('.')}."
    if isinstance(error, QueueFull):
        return ApiError(429, message, code="queue_full", headers={"Retry-After": RETRY_SECONDS})
    if isinstance(error, SchedulerClosed):
        return ApiError(503, message)
    if isinstance(error, BrokenModelError):
        return ApiError(500, message, code="broken_model", headers=NO_RETRY)
    return ApiError(400, message)
