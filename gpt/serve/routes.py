"""The short routes: the models, the health of the server, and its numbers."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from gpt.serve.served import ServedModel

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """List the models."""
    return {"object": "list", "data": [model_form(one) for one in request.app.state.served.models.values()]}


@router.get("/v1/models/{model:path}")
async def model(model: str, request: Request) -> dict[str, Any]:
    """Describe a model."""
    return model_form(request.app.state.served.find(model))


def model_form(served: ServedModel) -> dict[str, Any]:
    """Return a model in the form of OpenAI's API, and how many tokens it sees."""
    return {
        "id": served.id, "object": "model", "created": served.created, "owned_by": "tensorlite",
        "context_length": served.context,
    }  # fmt: skip


@router.get("/healthz")
@router.head("/healthz", include_in_schema=False)
async def healthz(request: Request) -> Response:
    """Say whether the server takes requests: 200, or 503 while it ends."""
    draining = request.app.state.served.draining
    return JSONResponse({"status": "draining" if draining else "ok"}, 503 if draining else 200)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return the numbers of the server in Prometheus's text format."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
