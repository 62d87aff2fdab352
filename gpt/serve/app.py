"""The application of the server: its routes, its checks and its errors."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from gpt.model import GPT
from gpt.serve.options import ServeOptions
from gpt.serve.served import Served
from gpt.tokenizer import Tokenizer

PAGE = Path(__file__).with_name("page")


def create_app(models: Mapping[str, tuple[GPT, Tokenizer]], options: ServeOptions | None = None) -> FastAPI:
    """Return the application that serves models.

    models: each name in the API with its model, in evaluation mode, and its tokenizer; the first one is the default.
    `GET /` is page/index.html, and `GET /page/NAME` another file of that folder. Routes find the models in
    `request.app.state.served`, which is a `Served`.
    """
    served = Served(models, options or ServeOptions())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            served.close()

    app = FastAPI(title="tensorlite", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.served = served
    # app.include_router(page_api.router)
    app.mount("/page", StaticFiles(directory=PAGE, check_dir=False), name="page")

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    return app
