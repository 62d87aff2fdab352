"""JSON lines with one document each: a field of each object has the text."""

import json
from collections.abc import Iterator

from gpt.data.text import DataError, unix_lines
from gpt.errors import short


class LineError(DataError):
    """A line that cannot be used. line: its number in the text that was read, from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(line, problem)
        self.line, self.problem = line, problem

    def at(self, lines: int, name: str) -> DataError:
        """Return the error with the place in a file, of which `lines` lines come before that text."""
        return DataError(f"line {lines + self.line} of {name!r}: {self.problem}")


def documents(text: str, field: str) -> Iterator[tuple[int, str]]:
    """Yield the number of each line, from 1, that is not blank, and its document, with line feeds as line ends.

    Empty documents are left out. Raises LineError for a line that is not an object with a text in that field.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and (document := parse_line(line, field, number)):
            yield number, document


def parse_line(line: str, field: str, number: int) -> str:
    """Return the text of a line. Raises LineError."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise LineError(number, f"expected JSON, one object on each line, got {short(line)} ({reason})") from None
    if not isinstance(value, dict):
        raise LineError(number, f"expected an object with the field {field!r}, got {short(value)}")
    if field not in value:
        names = ", ".join(map(short, list(value)[:8])) or "no field"
        raise LineError(number, f"expected the field {field!r}, got {names}. Name the field of the text with --field")
    if not isinstance(text := value[field], str):
        raise LineError(number, f"expected a text in the field {field!r}, got {short(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LineError(
            number, f"{text[error.start]!r} at position {error.start} of the field {field!r} is not a character"
        ) from None
    return unix_lines(text)
