"""The application of the server: its routes, and the layers of checks around them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from gpt.errors import UserError
from gpt.model import GPT
from gpt.serve import chat, completions, page_api, routes
from gpt.serve.errors import ApiError, ErrorBody, error_body
from gpt.serve.failures import as_api_error
from gpt.serve.limits import RequestLimits
from gpt.serve.metrics import CountRequests, Metrics
from gpt.serve.options import ServeOptions
from gpt.serve.security import Guard, TokenCheck
from gpt.serve.served import Served
from gpt.tokenizer import Tokenizer
from tensorlite import __version__

PAGE = Path(__file__).with_name("page")


def create_app(models: Mapping[str, tuple[GPT, Tokenizer]], options: ServeOptions | None = None) -> FastAPI:
    """Return the application that serves models.

    models: each name in the API with its model, in evaluation mode, and its tokenizer; the first one is the default.
    `GET /` is page/index.html, and `GET /page/NAME` another file of that folder. Routes find the models in
    `request.app.state.served`, which is a `Served`.
    """
    options = options or ServeOptions()
    served = Served(models, options)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            served.close()

    # The pages of FastAPI's documentation load scripts from elsewhere.
    app = FastAPI(
        title="tensorlite", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
        lifespan=lifespan, responses={"4XX": {"model": ErrorBody, "description": "What is wrong with the request."}},
    )  # fmt: skip
    app.state.served = served
    app.state.metrics = metrics = Metrics(served)
    for router in (routes.router, completions.router, chat.router, page_api.router):
        app.include_router(router)
    app.add_api_route("/", index, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/page", StaticFiles(directory=PAGE, check_dir=False), name="page")
    add_errors(app)
    # The last layer is the outermost.
    app.add_middleware(RequestLimits, served=served)
    app.add_middleware(TokenCheck, token=options.token)
    if options.allow_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=options.allow_origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    app.add_middleware(Guard, options=options)
    app.add_middleware(CountRequests, metrics=metrics)
    return app


async def index() -> FileResponse:
    """Return the page."""
    return FileResponse(PAGE / "index.html")


def add_errors(app: FastAPI) -> None:
    """Give all errors the form of OpenAI's API."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if not isinstance(error, ApiError):
            what = f"{request.method} {request.url.path[:200]}"
            words = {404: f"{what}: no such address.", 405: f"{what}: this address has another method."}
            message = words.get(error.status_code, str(error.detail))
            error = ApiError(error.status_code, message, headers=error.headers)
        return error.response()

    @app.exception_handler(UserError)
    async def user_error(request: Request, error: UserError) -> Response:
        return as_api_error(error).response()

    @app.exception_handler(Exception)
    async def failure(request: Request, error: Exception) -> Response:
        return JSONResponse(error_body(500, "The server has failed. Its output has the reason."), 500)
