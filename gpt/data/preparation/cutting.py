"""Cut a file into units of some megabytes, which several processes read and encode independently.

A text is cut where no token crosses the border, a file of JSON lines after a line. So the tokens of all units together
are those of the whole file, whatever the size of the units.
"""

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gpt.data.text import DataError, open_bytes

UNIT = 2**23  # bytes: a process holds one unit, its characters and its tokens
MARK = b"\xef\xbb\xbf"  # the byte order mark, which some programs write before a text

# The last place where a word ends and white space follows. The first part is greedy, so it searches from the end.
# Bytes from 0x80 on are parts of other characters, which may be white space, too.
WORD_ENDS = {before: re.compile(rb"(?s:.*)[^\s\x1c-\x1f](?=[" + before.encode() + rb"])") for before in (" ", " \n")}
LONGEST_CHARACTER = 4  # bytes in UTF-8


@dataclass(frozen=True)
class Source:
    """A file as it was when it was cut.

    name: what the user calls it. field: for JSON lines, the field with the text of a document; "" for a text.
    borders: the positions in bytes where units begin, and the end. checksums: the CRC-32 of each unit.
    """

    path: Path
    name: str
    field: str
    size: int
    sha256: str
    borders: tuple[int, ...]
    checksums: tuple[int, ...]

    @property
    def units(self) -> range:
        """Return the numbers of the units."""
        return range(len(self.checksums))


@dataclass(frozen=True)
class Rule:
    """Where texts may be cut: before certain white space after a word, or before any character.

    before, by_character: see `cuts_before` and `by_character` of a tokenizer.
    """

    before: str
    by_character: bool

    def last_place(self, content: bytes) -> int:
        """Return the last place inside of a part of a text where it may be cut, 0 if there is none."""
        if self.by_character:
            return last_character(content)
        stop = len(content)
        while self.before and (found := WORD_ENDS[self.before].match(content, 0, stop)):
            if not ends_with_space(content[: found.end()]):
                return found.end()
            stop = found.end()
        return 0


def last_character(content: bytes) -> int:
    """Return the place of the last character of a part of a text that does not belong to the one before."""
    place = len(content) - 1
    while place > 0 and (content[place] & 0xC0 == 0x80 or content[place - 1 : place + 1] == b"\r\n"):
        place -= 1
    return max(0, place)


def ends_with_space(content: bytes) -> bool:
    """Return whether the last character of a text is white space; True for half of a character."""
    end = content[-LONGEST_CHARACTER:]
    for start in range(len(end) - 1, -1, -1):
        if end[start] & 0xC0 != 0x80:
            try:
                return end[start:].decode().isspace()
            except UnicodeDecodeError:
                return True
    return True


def after_last_line(content: bytes) -> int:
    """Return the place after the last line feed, 0 if there is none."""
    return content.rfind(b"\n") + 1


def cut_file(path: Path, name: str, field: str, rule: Rule, unit: int = UNIT) -> Source:
    """Return a file with the borders of its units, each of `unit` bytes or fewer where it may be cut there.

    It is read once, from start to end. Raises DataError if it cannot be read, or is empty.
    """
    sha = hashlib.sha256()
    borders: list[int] = []
    checksums: list[int] = []
    with open_bytes(path) as file:
        for position, content in pieces(file, after_last_line if field else rule.last_place, unit):
            sha.update(content)
            start = len(MARK) if not borders and content.startswith(MARK) else 0
            borders.append(position + start)
            checksums.append(zlib.crc32(content[start:]))
        size = file.tell()
    if size <= (borders[0] if borders else 0):
        raise DataError(f"{name!r} is empty. Leave it out")
    return Source(path, name, field, size, sha.hexdigest(), (*borders, size), tuple(checksums))


def pieces(file: BinaryIO, last_place: Callable[[bytes], int], unit: int) -> Iterator[tuple[int, bytes]]:
    """Yield the position and the content of each unit of a file."""
    position, held = 0, b""
    while content := file.read(max(1, unit - len(held)) if len(held) < unit else unit):
        held += content
        if len(held) >= unit and (place := last_place(held)):
            yield position, held[:place]
            position, held = position + place, held[place:]
    if held:
        yield position, held


def read_unit(source: Source, number: int) -> bytes:
    """Return the content of a unit. Raises DataError if it is not the one that was cut."""
    start, stop = source.borders[number : number + 2]
    with open_bytes(source.path) as file:
        file.seek(start)
        content = file.read(stop - start)
    if zlib.crc32(content) != source.checksums[number] or len(content) != stop - start:
        raise DataError(f"{source.name!r} has changed while it was read. Prepare it again when nothing writes to it")
    return content
