"""Test the documentation: its code runs and prints what the page shows, and its commands, names and links exist.

A Python block that begins with `>>>` is a session; the sessions of a page are one doctest. Any other Python block is a
program. If a `text` block follows it directly, the program must print exactly that text. The blocks of a page of
docs/learn are the cells of a notebook: together they are one program.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import tensorlite as tl
from tensorlite.learn.chapters import CHAPTERS

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "docs" / "learn").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *LESSONS,
    ROOT / "benchmarks" / "README.md",
    ROOT / "findings" / "README.md",
]
# Their listings are those of the English pages: see tests/project/test_translations.py.
TRANSLATIONS = [ROOT / "README.zh.md", *sorted((ROOT / "docs" / "zh").rglob("*.md"))]


class Block(NamedTuple):
    """A fenced block: its page, the line it begins on, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found, begun = [], None
    lines = page.read_text("utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if begun is None and (fence := re.fullmatch(r"```(\w*)", line)):
            begun = number, fence[1]
        elif begun is not None and line == "```":
            first, language = begun
            found.append(Block(page, first, language, "\n".join(lines[first : number - 1]) + "\n"))
            begun = None
    assert begun is None, f"{page}: the block of line {begun} has no end"
    return found


def prose(page: Path) -> str:
    """Return the text of a page without its blocks."""
    return re.sub(r"^```\w*\n.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
CELLS = [block for block in PYTHON if block.page in LESSONS]
PROGRAMS = [block for block in PYTHON if block not in CELLS and not block.text.startswith(">>>")]
SESSIONS = [page for page in PAGES if any(b.page == page for b in PYTHON if b not in PROGRAMS + CELLS)]


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A processor without bfloat16 arithmetic says so.
    command = [sys.executable, "-W", "error", "-W", "ignore:autocast", *args]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


# ---- code ---------------------------------------------------------------------------------------


def test_the_code_is_found():
    assert PROGRAMS
    assert SESSIONS


def test_every_block_has_a_language_that_is_tested():
    assert {block.language for block in BLOCKS} <= {"python", "text", "sh", "toml", "yaml"}


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_program(block, tmp_path):
    (tmp_path / "program.py").write_text(block.text, "utf-8")
    done = run(tmp_path, "program.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown_below(block), f"{block} prints something else than the page shows"


def shown_below(block: Block) -> str:
    """Return the `text` block that follows a block directly, "" if there is none."""
    after = [b for b in BLOCKS if b.page == block.page and b.line > block.line]
    lines = block.page.read_text("utf-8").splitlines()
    end = block.line + block.text.count("\n") + 1
    if after and after[0].language == "text" and not "".join(lines[end : after[0].line - 1]).strip():
        return after[0].text
    return ""


@pytest.mark.parametrize("page", LESSONS, ids=named)
def test_the_listings_of_a_lesson(page, tmp_path):
    """The listings run in one program, as in a notebook, and each prints the text below it."""
    cells = [block for block in CELLS if block.page == page]
    assert cells
    if any(re.search(r"^(?:from|import) gpt\b", cell.text, re.MULTILINE) for cell in cells):
        for package in ("filelock", "platformdirs", "safetensors", "tqdm"):
            pytest.importorskip(package)  # because the gpt package needs them
    mark = "\x1e"  # ASCII's record separator: no listing prints it
    (tmp_path / "program.py").write_text("".join(f"{cell.text}print({mark!r})\n" for cell in cells), "utf-8")
    done = run(tmp_path, "program.py")
    assert done.returncode == 0, done.stderr
    printed = [text.removeprefix("\n") for text in done.stdout.split(mark)[:-1]]
    for cell, text in zip(cells, printed, strict=True):
        assert text == shown_below(cell), f"{cell} prints something else than the page shows"


@pytest.mark.parametrize("page", [page for page in LESSONS if page.name[0].isdigit()], ids=named)
def test_a_chapter_has_its_parts(page):
    """A chapter begins with a question, has a picture, and ends with exercises that its command checks."""
    text = page.read_text("utf-8")
    assert re.match(r"# (\d)\. .+\n\n\*\*.+\?\*\*\n", text)
    (picture,) = re.findall(r"!\[.+\]\((\w+\.png)\)", text)
    assert (page.parent / picture).stat().st_size < 100_000
    exercises = CHAPTERS[int(page.name[0])].exercises
    last = text[text.index("## Exercises") :]
    assert [f"`{e.name}" in last for e in exercises] == [True] * 3
    assert f"check {page.name[0]}`" in last


def test_every_chapter_has_a_page():
    pages = {page.relative_to(ROOT).as_posix() for page in LESSONS}
    assert {chapter.page for chapter in CHAPTERS.values()} == pages - {"docs/learn/README.md"}


@pytest.mark.parametrize("page", SESSIONS, ids=named)
def test_session(page, tmp_path):
    text = "\n".join(block.text for block in PYTHON if block.page == page and block not in PROGRAMS)
    (tmp_path / "session.txt").write_text(text, "utf-8")
    done = run(tmp_path, "-m", "doctest", "-o", "ELLIPSIS", "-o", "NORMALIZE_WHITESPACE", "session.txt")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES + TRANSLATIONS, ids=named)
def test_names_exist(page):
    """Every name in the text such as `tl.func.grad` exists."""
    for name in re.findall(r"`tl\.([A-Za-z_][\w.]*)", prose(page)):
        value: object = tl
        for part in name.rstrip(".").split("."):
            assert hasattr(value, part), f"tl.{name}"
            value = getattr(value, part)


# ---- commands -----------------------------------------------------------------------------------


def commands(language: str = "sh") -> Iterator[tuple[Block, list[str]]]:
    """Yield the shell commands of all pages, each as its block and its words."""
    for block in BLOCKS:
        if block.language == language:
            for line in block.text.replace("\\\n", " ").splitlines():
                if words := shlex.split(re.split(r" [|>] ", line)[0], comments=True):
                    yield block, words


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text("utf-8")
    return set(re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split())


def test_make_commands_exist():
    asked = {word for _, words in commands() if words[0] == "make" for word in words[1:] if "=" not in word}
    asked |= {target for page in PAGES for target in re.findall(r"`make ([a-z-]+)", prose(page))}
    assert {"train", "test"} <= asked <= make_targets()


def gpt_commands():
    """Return the commands of `python -m gpt` by name."""
    import click

    from gpt.cli import main

    context = click.Context(main)
    return {name: main.get_command(context, name) for name in main.list_commands(context)}


def test_gpt_commands_parse():
    """Every `python -m gpt ...` has a known command, known options and valid values."""
    pytest.importorskip("click")
    known = gpt_commands()
    seen = 0
    for block, words in commands():
        words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
        if words[1:3] != ["-m", "gpt"] or len(words) == 3:
            continue
        seen += 1
        name, *args = words[3:]
        if name.startswith("-"):
            continue
        assert name in known, f"{block}: {name}"
        if "--help" not in args:
            known[name].make_context(name, args)  # raises UsageError
    assert seen > 5


def test_options_exist():
    """Every `--option` in the text of docs/training.md exists."""
    pytest.importorskip("click")
    parameters = [parameter for command in gpt_commands().values() for parameter in command.params]
    known = {option for parameter in parameters for option in parameter.opts + parameter.secondary_opts}
    named = set(re.findall(r"`(--[a-z-]+)", prose(ROOT / "docs" / "training.md")))
    assert named
    assert named <= known | {"--help"}


def test_presets_exist():
    from gpt.config import preset_names

    rows = re.findall(r"^\| `([\w.-]+)` +\|", (ROOT / "docs" / "training.md").read_text("utf-8"), re.MULTILINE)
    assert set(preset_names()) <= set(rows)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "toml"], ids=str)
def test_configuration_loads(block, tmp_path):
    from gpt.config import Config

    (tmp_path / "own.toml").write_text(block.text, "utf-8")
    Config.load(tmp_path / "own.toml")


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_manifest_of_kubernetes(block):
    manifest = pytest.importorskip("yaml").safe_load(block.text)
    assert {"apiVersion", "kind", "metadata", "spec"} <= manifest.keys()


# ---- links and files ----------------------------------------------------------------------------


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES + TRANSLATIONS, ids=named)
def test_links_have_targets(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place), target


@pytest.mark.parametrize("page", PAGES + TRANSLATIONS, ids=named)
def test_files_exist(page):
    """Every path in the text such as `tensorlite/autograd/engine.py` exists."""
    folders = "tensorlite|gpt|examples|tests|docs|benchmarks|tools"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", prose(page)):
        assert (ROOT / path).exists(), path


def test_the_loss_curve_is_a_small_picture():
    curve = ROOT / "docs" / "loss.png"
    assert curve.read_bytes().startswith(b"\x89PNG")
    assert curve.stat().st_size < 200_000


def test_names_in_the_reading_guide_exist():
    """Every `name` in its text is a word of the source."""
    text = prose(ROOT / "docs" / "reading-guide.md")
    files = [path for folder in ("tensorlite", "gpt") for path in (ROOT / folder).rglob("*.py")]
    words = {word for path in files for word in re.findall(r"\w+", path.read_text("utf-8"))}
    assert not set(re.findall(r"`([A-Za-z_]\w*)`", text)) - words


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_lines_are_not_too_long(page):
    lines = enumerate(page.read_text("utf-8").splitlines(), start=1)
    assert not [number for number, line in lines if len(line) > 120 and not line.startswith("|")]
