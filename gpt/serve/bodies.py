"""Read the body of a request, and say in one sentence what is wrong with it."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, get_args

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import from_json

from gpt.config.fields import suggestion
from gpt.errors import short
from gpt.serve.errors import ApiError


class JsonRequest(Request):
    """A request whose body is read as RFC 8259 says: no NaN, no half of a surrogate pair, no endless nesting."""

    async def json(self) -> Any:
        """Return the value of the body. Raises ApiError 400."""
        body = await self.body()
        try:
            return from_json(body, allow_inf_nan=False, cache_strings="keys")
        except ValueError as error:
            raise ApiError(400, f"The body is not JSON: {str(error)[:200]}.", code="invalid_json") from None


class JsonRoute(APIRoute):
    """A route whose body is JSON. FastAPI's documentation calls this a custom route class."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that handles a request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if self.body_field is not None:
                check_content_type(request.headers.get("content-type", ""))
            try:
                return await handler(JsonRequest(request.scope, request.receive))
            except RequestValidationError as error:
                raise invalid(error.errors(), self.body_field and self.body_field.field_info.annotation) from None

        return handle


def check_content_type(given: str) -> None:
    """Raise ApiError 415 unless a body is JSON in UTF-8."""
    kind, _, parameters = given.lower().partition(";")
    charset = parameters.partition("charset=")[2].partition(";")[0].strip(' "')
    if kind.strip() != "application/json" or charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise ApiError(
            415, f"Content-Type: expected application/json, got {short(given)}. Send it with that header."
        )


def invalid(errors: Sequence[Mapping[str, Any]], model: Any) -> ApiError:
    """Return the error of a body that does not have the form of its model, by the first error of pydantic."""
    error = most_exact(errors)
    kind, got = error["type"], short(error.get("input"))
    place = [part for part in error["loc"] if part != "body"]
    # The place also names the member of a union that was tried, which is not part of the request.
    names = [part for part in place[:-1] if not is_type(part)]
    names += [part for part in place[-1:] if kind == "extra_forbidden" or not is_type(part)]
    if not names:
        got = "no body" if kind == "missing" else got
        return ApiError(400, f"The body: expected a JSON object, got {got}.")
    field, owner = field_at(model, names)
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names).removeprefix(".")[:200]
    if kind == "extra_forbidden":
        hint = suggestion(str(names[-1]), owner.model_fields) if owner is not None else ""
        return ApiError(400, f"{param}: no field has this name{hint}.", param=param, code="unknown_parameter")
    expected = error["msg"] if field is None else field.description
    if kind == "missing":
        return ApiError(400, f"{param}: expected {expected}, got nothing.", param=param, code="missing_parameter")
    return ApiError(400, f"{param}: expected {expected}, got {got}.", param=param, code="invalid_value")


def most_exact(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the first error. Where all members of a union fail, it is the one that is deepest in the request."""
    first = errors[0]["loc"]
    union = next((place for place, part in enumerate(first) if is_type(part)), len(first))
    alike = [error for error in errors if error["loc"][:union] == first[:union]]
    return max(alike, key=lambda error: len(error["loc"]))


def is_type(part: object) -> bool:
    """Return whether a part of pydantic's place is the name of a type."""
    return isinstance(part, str) and (part in ("str", "constrained-str", "int", "float") or "[" in part)


def field_at(model: Any, names: Sequence[str | int]) -> tuple[FieldInfo | None, type[BaseModel] | None]:
    """Return the field that names lead to, as far as there are fields, and the model of the objects in it."""
    field: FieldInfo | None = None
    owner: type[BaseModel] | None = model
    for name in names:
        if owner is not None and isinstance(name, str):
            found = next((one for key, one in owner.model_fields.items() if name in (key, one.alias)), None)
            if found is None:
                break
            field, owner = found, model_in(found.annotation)
    return field, owner


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a type consists of, such as that of a list of objects; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)
