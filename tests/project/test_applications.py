"""Test docs/applications.md: each experiment has a section, and its table is the newest that was measured."""

import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "applications.md").read_text("utf-8")


@pytest.fixture
def run_examples(monkeypatch):
    """Return the script as a module. It imports others of its folder."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("run_examples")


def test_every_experiment_has_a_section_in_the_order_of_the_numbers(run_examples):
    stems = [path.stem for path in run_examples.EXPERIMENTS]
    assert len(stems) >= 10
    assert re.findall(r"^<!-- results of (\w+) -->$", PAGE, re.MULTILINE) == stems
    for stem, section in zip(stems, PAGE.split("\n## ")[1:], strict=True):
        assert f"examples/{stem}.py" in section
        assert f"<!-- results of {stem} -->" in section


def test_the_tables_are_copied_from_results(run_examples):
    tables = run_examples.newest_tables()
    assert set(tables) == {path.stem for path in run_examples.EXPERIMENTS}
    assert run_examples.with_tables(PAGE, tables) == PAGE


def test_an_example_is_run_and_its_table_is_found(run_examples, tmp_path, capsys):
    example = tmp_path / "07_small.py"
    example.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'examples')!r})\nfrom common import Experiment\n"
        "experiment = Experiment(__doc__)\n"
        'experiment.result("loss", 1.25, "nats", 2, "a guess")\nexperiment.result("steps", 3)\nexperiment.finish()\n',
        "utf-8",
    )
    assert run_examples.run(example, tmp_path, quick=True)
    printed = capsys.readouterr().out
    ((stem, table),) = run_examples.SECTION.findall(printed)
    assert stem == "07_small"
    assert table.splitlines()[2:] == ["| loss | 1.25 nats | 2 (a guess) |", "| steps | 3 | |"]
    page = "text\n<!-- results of 07_small -->\n| old |\n<!-- end -->\nmore\n"
    assert run_examples.with_tables(page, {stem: table}) == page.replace("| old |\n", table)


def test_an_example_that_fails_is_reported(run_examples, tmp_path, capsys):
    example = tmp_path / "07_broken.py"
    example.write_text("raise ValueError('no such text')\n", "utf-8")
    assert not run_examples.run(example, tmp_path, quick=True)
    assert "07_broken: failed" in (printed := capsys.readouterr().out)
    assert "no such text" in printed


def test_an_unknown_number_is_an_error(run_examples, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run_examples.py", "99"])
    with pytest.raises(SystemExit):
        run_examples.main()
    assert "expected numbers of 07, 08" in capsys.readouterr().err
