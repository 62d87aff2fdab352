"""The routes under /api/runs: the runs below a folder, their losses while they are trained, and samples."""

import asyncio
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gpt import checkpoint, runs
from gpt.config import SamplingConfig
from gpt.errors import short
from gpt.generation import generate, stream
from gpt.runs.compare import NOT_COMPARED, RunSummary, find_runs, is_run, number, summarize
from gpt.serve.bodies import JsonRoute
from gpt.serve.errors import ApiError
from gpt.tokenizer import start_ids

router = APIRouter(route_class=JsonRoute)

RUNS = Path("runs")
CURVES = ("loss", "train_loss", "val_loss")
MOST_DEPTH = 6  # folders in the name of a run
MOST_POINTS = 1000  # of a curve; of a longer one, points at equal distances are sent
FRESH_SECONDS = 2.0  # in which all clients get the same list
SAMPLE_TOKENS = 120

lists: dict[Path, tuple[float, dict[str, Any]]] = {}  # the last list of a folder, and when it was made


class SampleBody(BaseModel):
    """What a sample of a run is made with."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seed: int = Field(0, ge=0, lt=2**53, description="a seed from 0 to 2^53 - 1")


@router.get("/runs")
async def list_runs(request: Request) -> Response:
    """Return the runs below the folder with their last losses. An unchanged list has the same ETag."""
    return with_tag(request, await asyncio.to_thread(summaries, folder_of(request)))


@router.get("/runs/{name:path}")
async def show_run(request: Request, name: str) -> Response:
    """Return the curves of a run, and its options."""
    folder, path = folder_of(request), path_of(request, name)
    return with_tag(request, await asyncio.to_thread(details, folder, path))


@router.post("/runs/{name:path}/sample")
async def sample_run(request: Request, name: str, body: SampleBody) -> dict[str, Any]:
    """Return a text that the latest checkpoint of a run writes. The checkpoint is loaded for it, and dropped again."""
    path, state = path_of(request, name), request.app.state
    if not hasattr(state, "page_sampling"):
        state.page_sampling = asyncio.Lock()
    async with state.page_sampling:  # One model is loaded at a time.
        return await asyncio.to_thread(sample, path, body.seed)


def folder_of(request: Request) -> Path:
    """Return the folder of the runs, which an application may have in `app.state.runs`."""
    return Path(getattr(request.app.state, "runs", RUNS))


def path_of(request: Request, name: str) -> Path:
    """Return the folder of a run. Raises ApiError 404 for a name that leads elsewhere, or to no run."""
    parts = name.split("/")
    inside = len(parts) <= MOST_DEPTH and all(is_plain(part) for part in parts)
    try:
        path = folder_of(request).joinpath(*parts)
        if inside and is_run(path):
            return path
    except (OSError, ValueError):  # A name that is too long, or that cannot be one of a file.
        pass
    raise ApiError(404, f"There is no run {short(name)} below {folder_of(request)}/.", param="name")


def is_plain(part: str) -> bool:
    """Return whether a part of a name is that of a folder that is not hidden, and is not a way out of its folder."""
    return not part.startswith(".") and not Path(part).drive and Path(part).name == part != ""


def summaries(folder: Path) -> dict[str, Any]:
    """Return the last losses of each run, those that changed last first. Several clients share a list for some time."""
    made, values = lists.get(folder, (0.0, {}))
    if not made or time.monotonic() - made > FRESH_SECONDS:
        found = find_runs(folder)[0] if folder.is_dir() else []
        found.sort(key=lambda run: run.changed, reverse=True)
        values = {"folder": str(folder), "runs": [described(folder, run) for run in found]}
        lists[folder] = (time.monotonic(), values)
    return values


def described(folder: Path, run: RunSummary) -> dict[str, Any]:
    """Return what the list says of a run. Its name is its path below the folder."""
    return {
        "name": run.path.relative_to(folder).as_posix(),
        "state": run.state,
        "step": run.step,
        "steps": run.steps,
        "train_loss": run.train_loss,
        "val_loss": run.val_loss if run.final_loss is None else run.final_loss,
        "best_loss": run.best_loss,
        "saved": saved(run.path / runs.LATEST),
    }


def saved(path: Path) -> float | None:
    """Return when a checkpoint was written, in seconds since 1970; None without one."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def details(folder: Path, path: Path) -> dict[str, Any]:
    """Return the curves of a run by their names, and its options by their dotted names."""
    run = summarize(path)
    lines = runs.read(path / runs.METRICS)
    curves = {key: thinned(points) for key in CURVES if (points := points_of(lines, key))}
    options = {key: value for key, value in run.options.items() if key not in NOT_COMPARED}
    return {**described(folder, run), "curves": curves, "options": options}


def points_of(lines: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """Return (step, value) of each line of metrics that has a finite number for a key."""
    return [(line["step"], value) for line in lines if (value := number(line, key)) is not None]


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most MOST_POINTS of the points of a curve, its last one included."""
    stride = -(-len(points) // MOST_POINTS)
    return points[::-1][::stride][::-1]


def sample(path: Path, seed: int) -> dict[str, Any]:
    """Return a text of the latest checkpoint of a run, and its step. Raises CheckpointError."""
    loaded = checkpoint.load(runs.find_checkpoint(path), "cpu")
    model, tokenizer = loaded.model.eval(), loaded.tokenizer
    tokens = generate(
        model, start_ids(tokenizer), SAMPLE_TOKENS, SamplingConfig(seed=seed), stop_tokens=tokenizer.stop_ids
    )
    return {"step": loaded.step, "seed": seed, "text": "".join(stream(tokenizer, tokens))}


def with_tag(request: Request, values: dict[str, Any]) -> Response:
    """Return values as JSON with an ETag, or 304 without a body where the client has them already."""
    body = json.dumps(values, allow_nan=False, default=str)
    tag = f'"{hashlib.sha256(body.encode()).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
