"""Exceptions of the rest of the program, as errors of the API."""

from gpt.errors import UserError
from gpt.serve.errors import ApiError
from gpt.serve.scheduler import QueueFull, SchedulerClosed

RETRY_SECONDS = "1"


def as_api_error(error: UserError) -> ApiError:
    """Return the error of the API for one that the user can correct: 429, 503, or else 400."""
    message = f"{str(error).removesuffix('.')}."
    if isinstance(error, QueueFull):
        return ApiError(429, message, code="queue_full", headers={"Retry-After": RETRY_SECONDS})
    if isinstance(error, SchedulerClosed):
        return ApiError(503, message)
    return ApiError(400, message)
