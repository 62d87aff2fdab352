"""Compare the Chinese pages with the English ones that they translate.

    python tools/translations.py             list what lags behind
    python tools/translations.py PAGE ...    mark these Chinese pages as up to date, after the text was translated

The first line of a Chinese page names its English page and a checksum of each section of it. A section whose text has
changed since has another checksum, so the page lags behind. Listings, pictures, links and `code` are the same in both.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
GENERATED = re.compile(r"<!-- written by .*?<!-- end of the table -->", re.DOTALL)  # from results, in README.md
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Section(NamedTuple):
    """A part of a page: its heading with what follows, up to the next heading of level 2."""

    heading: str
    text: str

    def blocks(self) -> list[tuple[str, str]]:
        """Return the language and the text of each fenced block."""
        return FENCE.findall(self.text)

    def prose(self) -> str:
        """Return the text without the fenced blocks."""
        return FENCE.sub("", self.text)

    def code(self) -> set[str]:
        """Return what is written as `code` in the prose."""
        return {" ".join(code.split()) for code in re.findall(r"`([^`]+)`", self.prose())}

    def targets(self, page: Path) -> set[str]:
        """Return what the prose links to, and its pictures: addresses, and paths from the root of the project."""
        found = set()
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", self.prose())):
            if re.match(r"https?://", target):
                found.add(target)
            elif path := target.partition("#")[0]:
                found.add(relative((page.parent / path).resolve()))
        return found

    def formulas(self) -> list[str]:
        """Return the formulas that stand alone."""
        return re.findall(r"\$\$(.+?)\$\$", self.prose(), re.DOTALL)

    def rows(self) -> int:
        """Return the number of rows of tables."""
        return len(re.findall(r"^\|", self.prose(), re.MULTILINE))

    def parts(self) -> int:
        """Return the number of lists, and of headings below this one."""
        return len(re.findall(r"\n\n(?:[-*]|\d+\.|###+) ", self.prose()))

    def checksum(self) -> str:
        """Return the first digits of a hash of the text, which changes with any word."""
        return hashlib.sha256(self.text.strip().encode()).hexdigest()[:8]


def relative(path: Path) -> str:
    """Return a path from the root of the project."""
    return Path(os.path.relpath(path, ROOT)).as_posix()


def sections(page: Path) -> list[Section]:
    """Return the sections of a page. The first one has the title; a line that names the translated page is left out."""
    text = GENERATED.sub("", page.read_text("utf-8"))
    text = re.sub(r"\A<!-- translation of .*-->\n+", "", text)
    heads = [match.start() for match in re.finditer(r"^#{1,2} ", FENCE.sub(blank, text), re.MULTILINE)]
    parts = [text[start:end] for start, end in zip(heads, [*heads[1:], len(text)], strict=True)]
    return [Section(part.partition("\n")[0].lstrip("# "), part) for part in parts]


def blank(match: re.Match[str]) -> str:
    """Return spaces of the length of a match, so that a comment of a listing is not a heading."""
    return " " * len(match[0])


def pairs() -> dict[Path, Path]:
    """Return the English page of each Chinese page that there must be."""
    chapters = sorted((ROOT / "docs" / "learn").glob("*.md"))
    english = [ROOT / "docs" / "training.md", ROOT / "docs" / "formulas.md", *chapters]
    pages = {ROOT / "docs" / "zh" / page.relative_to(ROOT / "docs"): page for page in english if page.exists()}
    return {ROOT / "README.zh.md": ROOT / "README.md", **pages}


def first_line(english: Path) -> str:
    """Return the first line of a Chinese page that is up to date."""
    checksums = " ".join(section.checksum() for section in sections(english))
    return f"<!-- translation of {relative(english)}: {checksums} -->"


def behind(chinese: Path, english: Path) -> Iterator[str]:
    """Yield what a Chinese page lacks of its English page."""
    if not chinese.exists():
        yield f"{relative(chinese)}: there is no such page yet. Translate {relative(english)}."
        return
    line = chinese.read_text("utf-8").partition("\n")[0]
    found = re.fullmatch(r"<!-- translation of (\S+): ([0-9a-f ]+) -->", line)
    if found is None or found[1] != relative(english):
        yield f"{relative(chinese)}: its first line does not name {relative(english)}."
        return
    source, translated = sections(english), sections(chinese)
    known = found[2].split()
    for section in source:
        if section.checksum() not in known:
            yield f"{relative(chinese)}: the section {section.heading!r} of {relative(english)} has changed."
    if len(source) != len(translated):
        yield f"{relative(chinese)}: {len(translated)} sections, but {len(source)} in {relative(english)}."
        return
    translations = {relative(page): relative(other) for other, page in pairs().items()}
    for ours, theirs in zip(source, translated, strict=True):
        place = f"{relative(chinese)}, {theirs.heading!r}"
        if theirs.blocks() != ours.blocks():
            yield f"{place}: its listings are not those of {ours.heading!r}."
        if theirs.formulas() != ours.formulas():
            yield f"{place}: its formulas are not those of {ours.heading!r}."
        if lost := ours.code() - theirs.code():
            yield f"{place}: without {', '.join(f'`{code}`' for code in sorted(lost))}."
        targets = {translations.get(target, target) for target in ours.targets(english)} - {relative(chinese)}
        if lost := targets - theirs.targets(chinese):
            yield f"{place}: no link to {', '.join(sorted(lost))}."
        for what, count in {"rows of tables": Section.rows, "lists and headings": Section.parts}.items():
            if count(ours) != count(theirs):
                yield f"{place}: {count(theirs)} {what}, but {count(ours)} in {ours.heading!r}."


def main(pages: list[str]) -> None:
    """List what lags behind, or mark the pages that the command line names."""
    for name in pages:
        chinese = Path(name).resolve()
        if chinese not in pairs():
            sys.exit(f"translations: expected a page of {', '.join(map(relative, pairs()))}, got {name}.")
        text = re.sub(r"\A<!-- translation of .*-->\n", "", chinese.read_text("utf-8"))
        chinese.write_text(f"{first_line(pairs()[chinese])}\n{text}", encoding="utf-8")
    found = [message for pair in pairs().items() for message in behind(*pair)]
    print("\n".join(found) or "Nothing lags behind.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main(sys.argv[1:])
