"""Move the files of an earlier run out of the way, in one step.

A process may be killed at any moment. So the files are first linked into a hidden folder, which then gets its name in
one rename, and only then removed from their old place. Before the rename the run is whole where it was, after it the
run is whole in the new folder. Each step is on the disk before the next one, so that this also holds after a power cut.
"""

import filecmp
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from tensorlite.serialization import flush_to_disk

PREFIX = "earlier-"


def archive_files(folder: Path, names: list[str]) -> Path:
    """Move the named files of `folder` to its next subfolder `earlier-N`, and return that. Raises OSError.

    names: the first one is removed from its old place first.
    """
    last = last_archive(folder)
    archive = folder / f"{PREFIX}{last}"
    # After a kill between the rename and the end, the files that are left are in the last archive already.
    if not last or not all(same_file(folder / name, archive / name) for name in names):
        archive = folder / f"{PREFIX}{last + 1}"
        copy_in_one_step(folder, names, archive)
    for name in names:
        (folder / name).unlink()
    return archive


def last_archive(folder: Path) -> int:
    """Return the highest N of the subfolders `earlier-N`, or 0."""
    numbers = [path.name.removeprefix(PREFIX) for path in folder.glob(f"{PREFIX}*")]
    return max((int(number) for number in numbers if number.isdecimal() and number.isascii()), default=0)


def copy_in_one_step(folder: Path, names: list[str], archive: Path) -> None:
    """Make the folder `archive` with links to the named files of `folder`, or copies where links are not possible."""
    hidden = archive.with_name(f".{archive.name}.{secrets.token_hex(4)}.tmp")
    try:
        hidden.mkdir()
        for name in names:
            (hidden / name).parent.mkdir(exist_ok=True)
            link_or_copy(folder / name, hidden / name)
        for path in [*hidden.rglob("*"), hidden]:
            flush_to_disk(path)
        hidden.rename(archive)
        flush_to_disk(folder)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a second name of the file `source`, or a copy of it if the file system has no such links."""
    if not source.is_symlink():
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def same_file(a: Path, b: Path) -> bool:
    """Return whether two paths name the same file, or files with the same content."""
    if not b.is_file():
        return False
    return a.samefile(b) or filecmp.cmp(a, b, shallow=False)
