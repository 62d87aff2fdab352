"""Make a folder that a power cut may leave, from the journal of a `Recorder`.

A journaling file system promises two things: after `fsync` of a file its content survives, and after `fsync` of a
folder the names in it do. Of what has changed since, a power cut leaves any part: a name may be the old or the new one,
and the content of a file may be the old one, the new one, cut, or zeros (Pillai et al. 2014, "All File Systems Are Not
Created Equal: On the Complexity of Crafting Crash-Consistent Applications").
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.torture.recorder import LOG, Names

NOTHING = "nothing"
BLOCK = 512  # Bytes that a drive writes at once.


class Disk:
    """What a journal says.

    certain: the names in each folder that are on the disk for certain. contents: the same for the content of files.
    changes: of names, in their order, each one as a whole, that no flush has followed. saved: the steps of which the
    run believes that their checkpoint is on the disk.
    """

    def __init__(self, journal: Path) -> None:
        self.journal, self.root = journal, 0
        self.names: dict[int, Names] = {}
        self.certain: dict[int, Names] = {}
        self.contents: dict[int, Path] = {}
        self.changes: list[list[Any]] = []
        self.saved: list[int] = []
        self.events = 0
        for text in (journal / LOG).read_text().splitlines():
            line = json.loads(text)
            kind = line.pop("kind")
            LINES[kind](self, **line)

    def note_root(self, number: int) -> None:
        """Note the number of the folder that holds everything."""
        self.root = number

    def note_names(self, changes: list[Any]) -> None:
        """Note a change of names."""
        self.changes.append(changes)
        apply(self.names, changes)

    def note_folder(self, number: int) -> None:
        """Note that the names of a folder are on the disk."""
        self.certain[number] = dict(self.names.get(number, {}))
        later = [[change for change in changes if change[0] != number] for changes in self.changes]
        self.changes = [changes for changes in later if changes]

    def note_file(self, number: int, copy: int) -> None:
        """Note that the content of a file is on the disk."""
        self.contents[number] = self.journal / f"copy-{copy}"

    def note_saved(self, step: int) -> None:
        """Note that the checkpoint of a step is written."""
        self.saved.append(step)

    def note_event(self) -> None:
        """Count an event, at which a process may kill itself."""
        self.events += 1


LINES: dict[str, Callable[..., None]] = {
    "root": Disk.note_root,
    "names": Disk.note_names,
    "folder": Disk.note_folder,
    "file": Disk.note_file,
    "saved": Disk.note_saved,
    "event": Disk.note_event,
}


def apply(names: dict[int, Names], changes: list[Any]) -> None:
    """Change names as a line of the journal says."""
    for number, name, entry in changes:
        folder = names.setdefault(number, {})
        if entry is None:
            folder.pop(name, None)
        else:
            folder[name] = (entry[0], entry[1])


def cut_power(disk: Disk, root: Path, rng: random.Random) -> str:
    """Replace a folder by one that a power cut may leave. Return what it lost, in words, NOTHING if that is nothing."""
    names = {number: dict(entries) for number, entries in disk.certain.items()}
    if rng.random() < 0.5:  # File systems such as ext4 keep the order of changes of names.
        kept = disk.changes[: rng.randint(0, len(disk.changes))]
    else:
        share = rng.choice([0.0, 0.5, 0.9])
        kept = [changes for changes in disk.changes if rng.random() < share]
    for changes in kept:
        apply(names, changes)
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    fates = write_folder(disk, names, disk.root, root, rng)
    if len(kept) < len(disk.changes):
        fates.insert(0, f"{len(disk.changes) - len(kept)} of {len(disk.changes)} changes of names")
    return ", ".join(fates) or NOTHING


def write_folder(disk: Disk, names: dict[int, Names], number: int, path: Path, rng: random.Random) -> list[str]:
    """Write the files below a folder, each as a power cut may leave it. Return what became of them."""
    fates = []
    for name, (entry, is_folder) in sorted(names.get(number, {}).items()):
        if is_folder:
            (path / name).mkdir()
            fates += write_folder(disk, names, entry, path / name, rng)
            continue
        certain = disk.contents[entry].read_bytes() if entry in disk.contents else b""
        live = (disk.journal / f"live-{entry}").read_bytes()
        fate = rng.choice(list(FATES)) if certain != live else "whole"
        (path / name).write_bytes(FATES[fate](certain, live, rng))
        if fate != "whole":
            fates.append(f"{name} {fate}")
    return fates


def cut(certain: bytes, live: bytes, rng: random.Random) -> bytes:
    """Return the certain content and a part of what was appended, or a part of the new content."""
    start = len(certain) if live.startswith(certain) else 0
    return live[: rng.randint(start, len(live))]


def zeros(certain: bytes, live: bytes, rng: random.Random) -> bytes:
    """Return the certain content, and zeros where the size of the file grew."""
    return certain[: len(live)] + bytes(max(0, len(live) - len(certain)))


def mixed(certain: bytes, live: bytes, rng: random.Random) -> bytes:
    """Return blocks of both contents."""
    old = certain + bytes(max(0, len(live) - len(certain)))
    starts = range(0, len(live), BLOCK)
    return b"".join(rng.choice([live, old])[start : start + BLOCK] for start in starts)[: len(live)]


FATES: dict[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "whole": lambda certain, live, rng: live,
    "lost": lambda certain, live, rng: certain,
    "cut": cut,
    "zeros": zeros,
    "mixed": mixed,
}
