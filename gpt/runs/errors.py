"""Errors about the folder of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt.errors import UserError


class RunFolderError(UserError, RuntimeError):
    """A folder of a run that another process uses, or that cannot be written."""


def folder_error(folder: Path, error: OSError) -> RunFolderError:
    """Return the error for a folder of a run that cannot be written."""
    return RunFolderError(
        f"cannot write to the run's folder {str(folder)!r}: {error.strerror}. What was saved before is kept. A "
        "new run can write elsewhere: --out FOLDER"
    )


@contextmanager
def run_folder_errors(folder: Path) -> Iterator[None]:
    """Context manager that turns an OSError into a RunFolderError that names the folder of the run."""
    try:
        yield
    except OSError as error:
        raise folder_error(folder, error) from error
