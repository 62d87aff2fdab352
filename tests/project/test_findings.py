"""Test the form of the scripts in findings/. They download packages, so the tests do not run them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


def test_the_readme_lists_every_script():
    text = (FOLDER / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| \[`(\S+\.sh)`\]\((\S+\.sh)\) \| \S", text, re.MULTILINE)
    assert listed == [(path.name, path.name) for path in SCRIPTS]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_has_the_form_that_the_readme_asks_for(path):
    text = path.read_text("utf-8")
    comment = re.match(r"#!/bin/sh\n((?:#.*\n)+)set -eu\n", text)[1]
    for word in ("\n# Expected:", "\n# Found ("):
        assert word in comment
    installs = re.findall(r"pip install -qq --disable-pip-version-check (.+)", text)
    assert installs
    for install in installs:
        assert all(re.fullmatch(r"[\w-]+==[\d.]+", package) for package in install.split()), install
    assert "mktemp -d" in text
    assert "trap 'rm -rf" in text
    assert not re.search(r"import tensorlite|from tensorlite", text)
    assert re.search(r"^assert |^\[ ", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no POSIX shell")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_shell_can_read_it(path):
    done = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert os.access(path, os.X_OK) or os.name == "nt"
