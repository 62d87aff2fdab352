"""Write a model of ours, with its tokenizer, in the formats of other programs."""

import json
from pathlib import Path

from gpt.checkpoint import gguf, huggingface
from gpt.checkpoint.base import Checkpoint, CheckpointError
from gpt.tokenizer import to_files, to_gguf
from tensorlite import serialization


def export_huggingface(loaded: Checkpoint, folder: str | Path) -> None:
    """Write a folder that transformers loads: config, weights, tokenizer, and the settings of generation.

    Raises CheckpointError or TokenizerError if transformers has no such model or tokenizer, and OSError.
    """
    folder, tokenizer = Path(folder), loaded.tokenizer
    # The texts first, so that nothing is written if one of them cannot be made.
    files = to_files(tokenizer)
    ends = sorted(tokenizer.stop_ids)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": ends[0] if len(ends) == 1 else ends or None}
    if generation := {key: value for key, value in ids.items() if value is not None}:
        files["generation_config.json"] = json.dumps(generation, indent=2)
    before = set(folder.iterdir()) if folder.is_dir() else None
    try:
        huggingface.save_model(loaded.model, folder)
        for name, text in files.items():
            with serialization.atomic_write(folder / name) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
    except BaseException as error:
        remove_new(folder, before)
        if isinstance(error, OSError):
            raise CheckpointError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error
        raise


def remove_new(folder: Path, before: set[Path] | None) -> None:
    """Remove the files that a folder had not before; None removes the folder, too. A part of a model helps nobody."""
    if folder.is_dir():
        for path in set(folder.iterdir()) - (before or set()):
            path.unlink()
        if before is None:
            folder.rmdir()


def export_gguf(loaded: Checkpoint, path: str | Path, weights: str = "F32") -> None:
    """Write a GGUF file that llama.cpp loads. weights: see `gpt.checkpoint.gguf.save_model`.

    Raises CheckpointError or TokenizerError if llama.cpp has no such model or tokenizer.
    """
    try:
        gguf.save_model(loaded.model, path, weights, to_gguf(loaded.tokenizer), loaded.config.name)
    except OSError as error:
        raise CheckpointError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
