"""The measurements of a run: one JSON object a line, each written at once, so that a crash loses none.

Lines of training: step, loss (nats a token, mean over the steps since the line before), grad_norm (of the last
step, before clipping), lr, ms_per_step, tokens_per_second. Lines of evaluation, an estimate on random batches: step,
train_loss, val_loss, val_bits_per_char. The last line, of the whole validation set: step, final_val_loss,
final_val_bits_per_char.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt.errors import UserError

FINAL = "final_val_loss"


class Metrics:
    """The file `path`, to be appended to. Raises UserError if it cannot be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a", encoding="utf-8").close()  # a folder that cannot be written to is better found at once

    def write(self, **values: Any) -> None:
        """Adds a line."""
        with writing(self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write(as_line(values))

    def go_back_to(self, step: int) -> None:
        """Takes out what comes after `step`, and what was measured when the run was thought to be done."""
        kept = [line for line in read(self.path) if line["step"] <= step and FINAL not in line]
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with writing(self.path.parent):
            temporary.write_text("".join(map(as_line, kept)), encoding="utf-8")
            os.replace(temporary, self.path)  # a crash leaves the old lines or the new ones


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """An OSError inside becomes a UserError that names the run's folder."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to the run's folder {str(folder)!r}: {error.strerror}. What was saved before is kept. A "
            "new run can write elsewhere: --out FOLDER"
        ) from error


def as_line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, none if there is no file; a line that a crash cut short is left out."""
    result = []
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            result.append(values)
    return result
