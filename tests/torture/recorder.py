"""Record in a process what it has put on the disk for certain.

`tests.torture.power_cut` reads the journal of a `Recorder`, and makes a folder that a power cut may leave.
"""

import json
import os
import signal
import stat
import threading
from pathlib import Path
from typing import Any

LOG = "log.jsonl"
CHANGES = ("rename", "replace", "unlink", "remove", "mkdir", "rmdir", "link", "symlink")

# The names in a folder: the number of the file or the folder behind each, and whether it is a folder.
Names = dict[str, tuple[int, bool]]


class Recorder:
    """What notes the changes of names and the flushes below a folder, in a journal outside of it.

    kill_at: the number of the event, from 1, at which the process kills itself; 0 never.
    ignored: flushes that are not noted, "files" or "folders", as if the code did not call them.
    """

    def __init__(self, root: Path, journal: Path, kill_at: int = 0, ignored: str = "") -> None:
        self.root, self.journal, self.kill_at, self.ignored = root, journal, kill_at, ignored
        self.lock = threading.RLock()
        self.names: dict[int, Names] = {}
        self.real = {name: getattr(os, name) for name in (*CHANGES, "fsync")}
        self.events = self.copies = 0

    def install(self) -> None:
        """Note the folder as it is, which is on the disk for certain, and all changes from now on."""
        self.journal.mkdir(parents=True)
        self.log = os.open(self.journal / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.note("root", number=os.stat(self.root).st_ino)
        self.scan()
        for number in {number for names in self.names.values() for number, folder in names.values() if not folder}:
            self.note_content(number, (self.journal / f"live-{number}").read_bytes())
        for number in self.names:
            self.note("folder", number=number)
        self.events = 0
        for name in CHANGES:
            setattr(os, name, self.watched(name))
        os.fsync = self.fsync

    def uninstall(self) -> None:
        """Restore the functions of the system."""
        for name, function in self.real.items():
            setattr(os, name, function)
        os.close(self.log)

    def watched(self, name: str) -> Any:
        """Return a function of the system whose changes are noted."""

        def function(*arguments: Any, **options: Any) -> Any:
            with self.lock:
                self.scan()  # because a library that is not Python's may have made files
                try:
                    return self.real[name](*arguments, **options)
                finally:
                    self.scan()
                    self.count()

        return function

    def fsync(self, descriptor: int) -> None:
        """Flush a file or a folder, and note that."""
        with self.lock:
            self.scan()
            status = os.fstat(descriptor)
            folder = stat.S_ISDIR(status.st_mode)
            # What another thread writes after this may be lost.
            content = b"" if folder else (self.journal / f"live-{status.st_ino}").read_bytes()
            self.count()
            self.real["fsync"](descriptor)
            if folder and self.ignored != "folders":
                self.note("folder", number=status.st_ino)
            if not folder and self.ignored != "files":
                self.note_content(status.st_ino, content)
            self.count()

    def count(self) -> None:
        """Count an event, and end the process if it is the last one."""
        self.events += 1
        self.note("event")
        if self.events == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, kind: str, **values: Any) -> None:
        """Add a line to the journal, in one write, so that a kill leaves all of it or nothing."""
        os.write(self.log, (json.dumps({"kind": kind, **values}) + "\n").encode())

    def note_content(self, number: int, content: bytes) -> None:
        """Note the content that a file has for certain."""
        self.copies += 1
        (self.journal / f"copy-{self.copies}").write_bytes(content)
        self.note("file", number=number, copy=self.copies)

    def scan(self) -> None:
        """Note the names that have changed, and keep each new file by a second name in the journal."""
        found: dict[int, Names] = {}
        pending = [self.root]
        while pending:
            folder = pending.pop()
            try:
                entries = list(os.scandir(folder))
                names = found.setdefault(os.stat(folder).st_ino, {})
            except FileNotFoundError:  # Another thread has removed it.
                continue
            for entry in entries:
                number, is_folder = entry.inode(), entry.is_dir(follow_symlinks=False)
                if is_folder:
                    pending.append(Path(entry.path))
                elif not (kept := self.journal / f"live-{number}").exists():
                    try:
                        self.real["link"](entry.path, kept)
                    except FileNotFoundError:
                        continue
                names[entry.name] = (number, is_folder)
        changes = []
        for number in sorted(found.keys() | self.names.keys()):
            old, new = self.names.get(number, {}), found.get(number, {})
            names = sorted(old.keys() | new.keys())
            changes += [(number, name, new.get(name)) for name in names if old.get(name) != new.get(name)]
        if changes:
            self.note("names", changes=changes)
        self.names = found
