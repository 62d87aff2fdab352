"""Freed memory stays with the process on glibc, so that the system does not clear the same pages in every step."""
import os
import platform
import subprocess
import sys

import pytest

from tensorlite.backends.cpu.malloc import SETTINGS

# Count the page faults of ten rounds that make and drop the same four arrays of 8 MB, after one round to get memory.
COUNT_FAULTS = """
import resource
import numpy as np
import tensorlite as tl

{setup}

def round():
    arrays = [np.ones(1_000_000) for _ in range(4)]

round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
BACKWARD = "tl.ones(3, requires_grad=True).sum().backward()"
GRAD = "x = tl.ones(3, requires_grad=True); tl.autograd.grad(x.sum(), x)"

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def faults(setup: str, **settings: str) -> int:
    env = {name: value for name, value in os.environ.items() if name not in (*SETTINGS, "TENSORLITE_MALLOC")}
    script = COUNT_FAULTS.format(setup=setup)
    done = subprocess.run(
        [sys.executable, "-c", script], env=env | settings, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.parametrize("setup", [BACKWARD, GRAD, "assert tl.keep_freed_memory()"])
def test_a_round_causes_no_page_faults(setup):
    assert faults(setup) < 100


@pytest.mark.parametrize("setup", ["", "tl.ones(3, requires_grad=True).sum()"])
def test_an_import_or_a_forward_pass_changes_nothing(setup):
    assert faults(setup) > 100


@pytest.mark.parametrize(
    "settings", [{"TENSORLITE_MALLOC": "system"}, {"MALLOC_TRIM_THRESHOLD_": "131072"}], ids=lambda s: next(iter(s))
)
def test_settings_of_the_user_stay(settings):
    assert faults(BACKWARD, **settings) > 100
    assert faults("assert not tl.keep_freed_memory()", **settings) > 100
