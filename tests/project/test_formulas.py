"""Test that docs/formulas.md quotes the source: each line below the name of a file is a line of that file."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "formulas.md"


def quotations() -> list[tuple[str, list[str]]]:
    """Return each file that the page quotes, with the lines below its name."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```text\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith(" "):
                found[-1][1].append(line.strip())
            else:
                found.append((line, []))
    return found


@pytest.mark.parametrize("quotation", quotations(), ids=lambda quotation: f"{quotation[0]}: {quotation[1][0]}")
def test_a_quoted_line_is_in_its_file(quotation):
    name, quoted = quotation
    lines = {line.strip() for line in (ROOT / name).read_text("utf-8").splitlines()}
    assert not [line for line in quoted if line not in lines]


def test_every_section_has_formulas_and_code():
    for section in re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        assert section.count("$$") >= 2
        assert section.count("$$") % 2 == 0
        assert "```text" in section
