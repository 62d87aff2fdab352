"""Test the words of the project: docstrings begin with a verb, and no file has an old-fashioned or private word.

The rules are in CONTRIBUTING.md. These tests check the rules that a list of words can express.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["tensorlite", "gpt", "examples", "benchmarks", "tests", "tools"]
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md"),
                *(ROOT / "findings").glob("*.md")])

WORDS = {
    # private words, and the field's terms for them
    r"(?i:crew|boards?)": "thread pool",
    r"quietly": "run_op",
    r"(?i:sweeps?)": "backward pass",
    r"taken_again": "regenerate_view",
    r"rebased": "inplace_in_graph",
    r"alone_in": "lock_run",
    r"set_aside": "archive_previous_run",
    r"pair of hands|in good hands": "threads",
    r"strangers?": "user",
    # old-fashioned or unclear words
    r"shall": "must",
    r"for want of": "without",
    r"but for": "except",
    r"for ever": "forever",
    r"whoever|whomever": "a noun",
    r"so many": "n",
    r"the same ones": "the same",
    r"(?<![Tt]here )(?<![Ww]here )is no(?! longer| more|,| such)": "is not a",
    r"(?:is|are) waited for": "waits, with a subject",
    r"(?<!\.)beside": "next to",
    r"so as to": "to",
    r"who waits|what nobody names|whoever is free": "a noun as the subject",
}

QUOTED = "Shall I compare thee"  # the poem of examples/05_train_gpt.py keeps its words

NOUNS = "The A An What Whether Who Whose How Where Why Which As Its This That All Each Every One Two Some".split()


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def words_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments, strings and names of Python source, with their lines."""
    kinds = (tokenize.COMMENT, tokenize.STRING, tokenize.NAME)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds or token.type == getattr(tokenize, "FSTRING_MIDDLE", -1):
            yield token.start[0], token.string


def found_words(text: str) -> list[str]:
    """Return the words of `text` that the list forbids."""
    found = []
    for pattern, instead in WORDS.items():
        for match in re.finditer(rf"\b(?:{pattern})\b", text):
            found.append(f"{match[0]!r}: write {instead!r}")
    return found


@pytest.mark.parametrize("path", [path for path in SOURCES if path != Path(__file__).resolve()], ids=named)
def test_sources_use_the_words_of_the_field(path):
    wrong = [
        f"{named(path)}:{line}: {word}"
        for line, text in words_of(path.read_text("utf-8"))
        if QUOTED not in text
        for word in found_words(text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_pages_use_the_words_of_the_field(path):
    text = path.read_text("utf-8")
    wrong = [
        f"{named(path)}:{number}: {word}"
        for number, line in enumerate(text.splitlines(), start=1) for word in found_words(line)
    ]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def first_words(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield line, name and first word of the docstring of each function, except tests, which state facts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            if not node.name.startswith("test_"):
                yield node.lineno, node.name, text.split()[0]


@pytest.mark.parametrize("path", [path for path in SOURCES if not named(path).startswith("benchmarks/")], ids=named)
def test_a_docstring_begins_with_a_verb(path):
    tree = ast.parse(path.read_text("utf-8"))
    wrong = [f"{named(path)}:{line}: {name}: {word}" for line, name, word in first_words(tree) if word in NOUNS]
    assert not wrong, "\n".join(wrong)


def test_the_word_list_finds_what_it_should():
    assert found_words("a crew of threads, waited for for want of a core") == [
        "'crew': write 'thread pool'", "'for want of': write 'without'"
    ]  # fmt: skip
    assert found_words("the axis is no integer") == ["'is no': write 'is not a'"]
    assert not found_words("there is no gradient, and it is no longer needed")
