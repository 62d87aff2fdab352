"""Test `python -m tensorlite.learn`: what it writes, what it says about a learner's file, its exit status."""

import subprocess
import sys
from pathlib import Path

import pytest

from tensorlite import learn
from tensorlite.learn import judging
from tensorlite.learn.chapters import CHAPTERS
from tensorlite.learn.command import main
from tensorlite.learn.learner_file import load_functions

RIGHT = '''import numpy as np
def slope(f, x, step=1e-5):
    return (f(x + step) - f(x - step)) / (2 * step)


def divide_gradients(g, a, b):
    return g / b, -g * a / b / b


def gradients(records, result):
    found = {result: 1.0}
    for output, inputs in records[::-1]:
        for name, k in inputs:
            if output in found:
                found[name] = found.get(name, 0) + found[output] * k
    return found
'''


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def checked(text, capsys, name="chapter_1.py"):
    """Check a file with this text; return the exit status and what was printed."""
    Path(name).write_text(text, "utf-8")
    status = main(["check", "1", name])
    done = capsys.readouterr()
    return status, done.out + done.err


# ---- start ------------------------------------------------------------------------------------------------------


def test_start_writes_a_file_and_check_finds_nothing_written(capsys):
    assert main(["start", "1"]) == 0
    assert "Wrote chapter_1.py" in capsys.readouterr().out
    text = Path("chapter_1.py").read_text("utf-8")
    assert "def slope(f, x, step=1e-05):" in text
    assert main(["check", "1"]) == 1
    assert capsys.readouterr().out.count("not written") == 3


def test_start_never_overwrites(capsys):
    Path("chapter_2.py").write_text("mine", "utf-8")
    assert main(["start", "2"]) == 2
    assert capsys.readouterr().err == (
        "Error: start: expected no file chapter_2.py, got one, and left it unchanged. Move it, or name another file.\n"
    )
    assert Path("chapter_2.py").read_text("utf-8") == "mine"
    assert main(["start", "2", "other.py"]) == 0
    assert "check 2 other.py" in capsys.readouterr().out


# ---- check ------------------------------------------------------------------------------------------------------


def test_right_solutions(capsys):
    status, text = checked(RIGHT, capsys)
    assert status == 0
    assert text.endswith(
        "3 of 3 right.\n"
        "Next: read docs/learn/2-tensors-and-broadcasting.md, then run: python -m tensorlite.learn start 2\n"
    )


def test_a_wrong_value_is_shown_with_its_call_and_a_hint(capsys):
    status, text = checked(RIGHT.replace("-g * a", "g * a"), capsys)
    assert status == 1
    assert text == """\
chapter 1: a number that remembers

slope             right
divide_gradients  wrong
    divide_gradients(4, 6, 2)
    expected: (2, -6)
    got:      (2, 6)
    In the gradient of b: 6 is not -6.
    Hint: If b grows, a / b falls: the gradient of b has a minus.
gradients         right

2 of 3 right.
"""


def test_an_exception_is_shown_with_the_learners_line(capsys):
    status, text = checked(RIGHT.replace("(2 * step)", "(2 * stepp)"), capsys)
    assert status == 1
    assert "    got:      NameError: name 'stepp' is not defined" in text
    assert "    chapter_1.py, line 3: return (f(x + step) - f(x - step)) / (2 * stepp)\n" in text
    assert "Traceback" not in text
    assert "Hint:" not in text


def test_a_print_of_the_learner_is_shown_once_for_each_call(capsys):
    """The search for a hint calls the function again, which is not to be seen."""
    _, text = checked(RIGHT.replace("    return g / b, -g", "    print('b is', b)\n    return g / b, g"), capsys)
    assert "6 is not -6." in text
    assert text.count("b is") == 1


def test_an_exception_of_the_numbers_has_a_hint(capsys):
    """A spelling needs none, but a KeyError is the way in which a missing step of this exercise shows."""
    _, text = checked(RIGHT.replace("if output in found", "if True"), capsys)
    assert "got:      KeyError: 'later'\n    chapter_1.py, line 15: " in text
    assert "    Hint: Go from the last record to the first." in text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def slope(f):\n    return 1.0", "The exercise calls slope(f, x, step=1e-05)."),
        ("def slope(f, x, step=1):\n    f(x)", "The function returned None. Does it end with `return`?"),
        ("def slope(f, x, step=1):\n    return 'six'", "A number is expected, not a str."),
        ("def slope(f, x, step=1):\n    return [6.0]", "A number is expected, not a list."),
        ("def slope(f, x, step=1):\n    return 6j", "A number is expected, not a complex."),
        ("def slope(f, x, step=1):\n    return np.complex64(6)", "A number is expected, not a complex64."),
        ("def slope(f, x, step=1):\n    return 10**400", "The number is too large for a float."),
        ("class A:\n    def __repr__(self): return 1 / 0\ndef slope(*_):\n    return A()", "an A, whose repr raises"),
        ("def slope(f, x, step=1):\n    return float('nan')", "nan is not 6."),
        ("def slope(f, x, step=1):\n    return slope(f, x, step)", "RecursionError"),
        ("def slope(f, x, step=1):\n    raise SystemExit", "got:      SystemExit"),
        ("slope = 6", "slope is 6, not a function."),
        ("", "There is no function slope."),
    ],
)
def test_other_faults_have_one_line(body, said, capsys):
    status, text = checked(RIGHT.replace("def slope", "def unused") + "\n\n" + body + "\n", capsys)
    assert status == 1
    assert said in text
    assert "2 of 3 right." in text


def test_a_loop_without_end_is_ended(capsys, monkeypatch):
    monkeypatch.setattr(judging, "SECONDS", 0.05)
    loop = "    while True:\n        try:\n            pass\n        except Exception:\n            pass\n    return"
    status, text = checked(RIGHT.replace("    return (f", loop + " (f"), capsys)
    assert status == 1
    if sys.gettrace() is None:
        assert "nothing after 0.05 seconds\n    Is there a loop that does not end?\n    chapter_1.py, line " in text


@pytest.mark.skipif(sys.gettrace() is not None, reason="a debugger turns the time limit off")
def test_a_file_without_end_is_ended(capsys, monkeypatch):
    monkeypatch.setattr(judging, "SECONDS", 0.05)
    status, text = checked("x = 1\nwhile True:\n    x += 1\n", capsys)
    assert status == 2
    assert "got TimeLimitError: it did not end within 0.05 seconds. Mend chapter_1.py, line " in text


def test_ctrl_c_ends_the_command(capsys):
    status, text = checked(RIGHT + "raise KeyboardInterrupt\n", capsys)
    assert (status, text) == (130, "Interrupted.\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def slope(f, x:\n", "got SyntaxError: '(' was never closed. Mend chapter_1.py, line 1: def slope(f, x:"),
        ("import nowhere\n", "got ModuleNotFoundError: No module named 'nowhere'. Mend chapter_1.py, line 1: import"),
        ("x = 1\nexit()\n", "got SystemExit: None. Mend chapter_1.py, line 2: exit()"),
    ],
)
def test_a_file_that_does_not_run(text, said, capsys):
    status, printed = checked(text, capsys)
    assert status == 2
    assert printed.startswith("Error: check: expected a file that runs, " + said)
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "1"], "expected a file chapter_1.py, got none. Write it with the command start."),
        (["check", "1", "my.ipynb"], "expected a Python file, got my.ipynb."),
        (["check", "9"], "expected a chapter from 1 to"),
        (["start", "0"], "expected a chapter from 1 to"),
    ],
)
def test_wrong_arguments_are_one_error(arguments, said, capsys):
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert said in text
    assert text.count("\n") == 1


def test_a_file_that_was_saved_twice_in_a_second_is_read_again(capsys):
    assert checked(RIGHT, capsys)[0] == 0
    assert checked(RIGHT.replace("-g * a", "+g * a"), capsys)[0] == 1
    assert not Path("__pycache__").exists()


# ---- the list, the module, the notebook -----------------------------------------------------------------------------


def test_the_list_says_what_is_solved(capsys):
    Path("chapter_1.py").write_text("print('noise')\n" + RIGHT.replace("-g * a", "g * a"), "utf-8")
    assert main([]) == 0
    first, second, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("1  a number that remembers")
    assert first.endswith("2 of 3 right in chapter_1.py")
    assert second.endswith("not started")
    assert last == "Next: fill in chapter_1.py, then run: python -m tensorlite.learn check 1"
    Path("chapter_1.py").write_text("1 +\n", "utf-8")
    main(["list"])
    text = capsys.readouterr().out
    assert "chapter_1.py does not run; check 1 says why" in text
    assert text.endswith("check 1\n")


def test_the_list_leads_to_the_next_chapter(capsys):
    main([])
    assert capsys.readouterr().out.endswith(
        "\n\nNext: read docs/learn/1-a-number-that-remembers.md, then run: python -m tensorlite.learn start 1\n"
    )
    Path("chapter_1.py").write_text(RIGHT, "utf-8")
    main([])
    assert capsys.readouterr().out.endswith(
        "\n\nNext: read docs/learn/2-tensors-and-broadcasting.md, then run: python -m tensorlite.learn start 2\n"
    )


def test_the_list_of_all_solutions_names_no_next_chapter(capsys):
    for number, chapter in CHAPTERS.items():
        module = f"tensorlite.learn.chapter_{number}"
        names = ", ".join(exercise.name for exercise in chapter.exercises)
        Path(chapter.file).write_text(f"from {module} import {names}\n", "utf-8")
    assert main([]) == 0
    assert capsys.readouterr().out.endswith("3 of 3 right in chapter_8.py\n\nAll exercises are right.\n")
    assert main(["check", "8"]) == 0
    assert capsys.readouterr().out.endswith("3 of 3 right.\n")


def test_the_functions_of_a_notebook(capsys):
    Path("cells.py").write_text(RIGHT, "utf-8")
    functions = load_functions(Path("cells.py"))
    assert learn.check(1, functions) is True
    Path("cells.py").unlink()  # a cell's code is in no file
    assert learn.check(1, functions | {"slope": functions["divide_gradients"]}) is False
    assert "the cell, line 7: " in capsys.readouterr().out


def test_the_module_runs_with_numpy_alone():
    script = (
        "import sys, runpy\n"
        "sys.argv = ['learn', 'list']\n"
        "try: runpy.run_module('tensorlite.learn', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'click', 'matplotlib', 'numba', 'scipy'} & set(sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": str(root)}, capture_output=True)
