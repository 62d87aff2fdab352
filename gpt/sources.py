"""Find a model by what a user calls it, and load it: a run, a checkpoint, a folder, a GGUF file, or a known name."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gpt import checkpoint, runs
from gpt.checkpoint import Checkpoint, CheckpointError
from gpt.checkpoint.adapter import apply_adapter, is_adapter, plan_of, read_adapter
from gpt.checkpoint.formats import FOLDER_FILES, is_model_folder
from gpt.checkpoint.quantization import check_quantize
from gpt.download import DownloadError, cache_dir, fetch
from gpt.errors import short
from gpt.known_models import MODELS, KnownModel
from gpt.model import quantize_model

DTYPES = ("float32", "float64")

# What a model needs of a repository on the hub. Nothing that is pickled is downloaded.
HUB_FILES = ("*.safetensors", "*.json", "merges.txt", "*.jinja")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load(
    source: str | Path,
    device: str = "auto",
    dtype: str = "float32",
    adapter: str | Path | None = None,
    quantize: str = "none",
) -> Checkpoint:
    """Return the model that a name or a path means, and its tokenizer. See `find` for the names.

    device: see `train.device`. dtype: float32 or float64; a checkpoint of ours keeps its own.
    adapter: the folder of an adapter, which is merged into the weights; see `gpt.checkpoint.adapter`.
    quantize: see `gpt.checkpoint.load`.
    Raises CheckpointError, DownloadError, TokenizerError and DeviceError.
    """
    if str(dtype) not in DTYPES:  # A dtype of NumPy has the same name.
        raise CheckpointError(f"load: expected a dtype of {' or '.join(DTYPES)}, got {short(dtype)}")
    check_quantize(quantize, device, str(dtype))
    if adapter is not None:
        read_adapter(adapter)  # Refuse one that cannot be used before a model is downloaded.
    path = find(source)
    if adapter is not None:
        return load_with_adapter(path, adapter, device, str(dtype), quantize)
    return checkpoint.load(path, device, dtype=str(dtype), quantize=quantize)


def load_with_adapter(
    path: Path, adapter: str | Path, device: str = "auto", dtype: str = "float32", quantize: str = "none"
) -> Checkpoint:
    """Return the model of a checkpoint, a folder or a GGUF file, with an adapter merged into its weights.

    quantize: int8 and int4 quantize the merged weights; with auto they stay float32.

    Raises CheckpointError if the adapter was made for another model, where its names and shapes tell before any weight
    is read.
    """
    found = read_adapter(adapter)
    plan_of(found, checkpoint.load_config(path).model)
    loaded = checkpoint.load(path, device, dtype=dtype)
    apply_adapter(loaded.model, found)
    if check_quantize(quantize, device, dtype) not in ("none", "auto"):
        quantize_model(loaded.model, quantize)
    return loaded


def find(source: str | Path) -> Path:
    """Return the path of the checkpoint, the folder or the file that a user means.

    source: a path, such as the folder of a run, or one with a single GGUF file; or a name in MODELS; or a repository of
        the Hugging Face hub, such as openai-community/gpt2. A path that exists comes first; ~ is the home of the user.
    Raises TypeError, CheckpointError for a name that means nothing, and DownloadError.
    """
    if not isinstance(source, str | Path):
        raise TypeError(f"load: expected a name or a path, got {short(source)}. Write it as a str or a Path")
    try:
        path = Path(source).expanduser()
        exists = path.exists()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"cannot read {short(str(source))}: {error.args[-1]}") from None
    if path.name in FOLDER_FILES and path.is_file() and (path.parent / "config.json").is_file():
        return path.parent  # a file of a model's folder, which is all needed
    if is_model_folder(path) or path.suffix == ".gguf":
        return path
    if is_adapter(path):
        raise CheckpointError(
            f"{str(source)!r} is an adapter, which has no weights of a model. Give its base as the model, and this "
            "folder with --adapter"
        )
    if exists and not (path / runs.LATEST).is_file() and len(files := list(path.glob("*.gguf"))) == 1:
        return files[0]  # Such a folder is what `export FOLDER --to gguf` writes.
    if exists:
        return runs.find_checkpoint(path)
    name = str(source)
    if name.lower() in MODELS:
        return download(MODELS[name.lower()])
    first = path.parts[0] if path.parts else "runs"
    if REPOSITORY.fullmatch(name) and first != "runs" and not Path(first).exists():  # Else it is a path that is wrong.
        return download_repository(name)
    try:
        return runs.find_checkpoint(path)
    except CheckpointError as error:
        if near := get_close_matches(name.lower(), MODELS, n=1):
            raise CheckpointError(f"{error}; or did you mean the model {near[0]!r}?") from None
        raise


def download(model: KnownModel) -> Path:
    """Return the path of a known model, after downloading it if needed. Raises DownloadError."""
    if isinstance(model.source, str):
        return download_repository(model.source)
    return fetch(model.source, cache_dir() / "models")


def download_repository(name: str) -> Path:
    """Return the folder of a repository of the hub, after downloading what is missing. Raises DownloadError."""
    snapshot, hub_error = hub()
    try:
        return Path(snapshot(name, allow_patterns=list(HUB_FILES)))
    except (OSError, ValueError, hub_error) as error:
        lines = str(error).strip().splitlines()
        raise DownloadError(
            f"could not fetch {name!r} from the Hugging Face hub: {lines[0] if lines else type(error).__name__}. "
            "Check the name and the connection, or give the path of a folder that you have"
        ) from error


def hub() -> tuple[Callable[..., Any], type[Exception]]:
    """Return what downloads a repository, and its errors. Raises DownloadError if the package is missing."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError as error:
        raise DownloadError(
            f"models of the Hugging Face hub need the package {error.name}: pip install 'tensorlite[hub]'"
        ) from error
    return snapshot_download, HfHubHTTPError


def cached(model: KnownModel) -> bool:
    """Return whether a known model is on this machine already."""
    if not isinstance(model.source, str):
        return (cache_dir() / "models" / model.source.name).is_file()
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:
        return False
    return isinstance(try_to_load_from_cache(model.source, "config.json"), str)
