"""Test that no Chinese page lags behind its English page, and that Markdown shows its text as it is meant."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tools import translations

ROOT = Path(__file__).resolve().parents[2]
PAIRS = translations.pairs()
PUNCTUATION = "，。、；：？！（）“”《》…"
TERMS = ROOT / "docs" / "zh" / "terms.md"


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("chinese", PAIRS, ids=named)
def test_a_page_is_up_to_date(chinese):
    found = list(translations.behind(chinese, PAIRS[chinese]))
    assert not found, "\n".join(found)


def test_every_chinese_page_is_a_translation():
    pages = {ROOT / "README.zh.md", *(ROOT / "docs" / "zh").rglob("*.md")}
    assert pages == {*PAIRS, TERMS}


@pytest.mark.parametrize("page", PAIRS, ids=named)
def test_emphasis_is_shown(page):
    """A * with punctuation inside and a letter outside marks nothing, and Markdown shows it (CommonMark 6.2)."""
    text = re.sub(r"`[^`]*`|\$[^$]*\$", "x", translations.FENCE.sub("", page.read_text("utf-8")))
    wrong = []
    for line in text.splitlines():
        line = re.sub(r"^[-*] |(?<= )\*(?= )", "", line)  # neither the mark of a list nor a multiplication
        marks = list(re.finditer(r"\*{1,2}", line))
        line = f" {line} "
        for i, mark in enumerate(marks):
            inside, outside = line[mark.end() + 1], line[mark.start()]
            if i % 2:
                inside, outside = outside, inside
            if inside in PUNCTUATION and re.match(r"\w", outside):
                wrong.append(line[mark.start() - 5 : mark.end() + 5])
        assert len(marks) % 2 == 0, line
    assert not wrong


@pytest.mark.parametrize("page", PAIRS, ids=named)
def test_a_paragraph_is_one_line(page):
    """Browsers show the end of a line as a space, which Chinese does not have between words."""
    lines = translations.FENCE.sub("", page.read_text("utf-8")).splitlines()
    wide = r"[^\x00-\x7f]"
    assert not [(a, b) for a, b in pairwise(lines) if re.search(f"{wide}$", a) and re.match(wide, b)]


def terms() -> list[tuple[str, str]]:
    """Return the terms of the list in docs/zh/terms.md, each with its English word."""
    return re.findall(r"^\| ([^|]+?) \| ([A-Za-z][^|]*?) \|", TERMS.read_text("utf-8"), re.MULTILINE)


def test_terms_have_the_english_word_at_first_use():
    """In the chapters, in their order, the first use of a term is followed by its English word."""
    chapters = sorted(page for page in PAIRS if page.parent.name == "learn" and page.name[0].isdigit())
    text = "\n".join(translations.FENCE.sub("", page.read_text("utf-8")) for page in chapters)
    text = re.sub(r"^#.*$|^!\[.*$|^\*\*[^*]*\*\*$|\[[^\]]*\]\([^)]*\)", "", text, flags=re.MULTILINE).replace("*", "")
    assert len(terms()) >= 50
    wrong = []
    for chinese, english in terms():
        if chinese in text:
            rest = text[text.index(chinese) + len(chinese) :]
            if not rest.lower().startswith(f"（{english.lower()}"):
                wrong.append(f"{chinese}（{english}）: {chinese}{rest[:20]!r}")
    assert not wrong, "\n".join(wrong)


# ---- the checks find what they should -------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Return a Chinese page that is up to date, and its English page."""
    monkeypatch.setattr(translations, "ROOT", tmp_path)
    english, chinese = tmp_path / "README.md", tmp_path / "README.zh.md"
    (tmp_path / "docs" / "learn").mkdir(parents=True)
    body = "# {0}\n\n{1} `x` [{1}](a.py)\n\n```python\n# a comment\nx = 1\n```\n\n## {0}\n\n$$y$$\n\n| {0} |\n"
    english.write_text(body.format("Title", "text"), encoding="utf-8")
    line = translations.first_line(english)
    chinese.write_text(f"{line}\n{body.format('标题', '文字')}", encoding="utf-8")
    assert not list(translations.behind(chinese, english))
    return chinese, english


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("text `x`", "another text `x`", "the section 'Title' of README.md has changed"),
        ("| Title |", "| Title |\n| more |", "the section 'Title' of README.md has changed"),
    ],
)
def test_a_changed_english_page_is_noticed(pair, old, new, message):
    chinese, english = pair
    english.write_text(english.read_text("utf-8").replace(old, new), encoding="utf-8")
    assert message in "\n".join(translations.behind(chinese, english))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("x = 1", "x = 2", "its listings are not those of 'Title'"),
        ("`x`", "`y`", "without `x`"),
        ("(a.py)", "(b.py)", "no link to a.py"),
        ("$$y$$", "$$z$$", "its formulas are not those of 'Title'"),
        ("| 标题 |", "", "0 rows of tables, but 1"),
        ("## 标题", "标题", "1 sections, but 2 in README.md"),
        ("README.md:", "OTHER.md:", "its first line does not name README.md"),
    ],
)
def test_a_lack_of_a_chinese_page_is_noticed(pair, old, new, message):
    chinese, english = pair
    chinese.write_text(chinese.read_text("utf-8").replace(old, new), encoding="utf-8")
    assert message in "\n".join(translations.behind(chinese, english))
