"""Freed memory stays with the process on glibc: pages are cleared by the system once, not in every step."""
import os
import platform
import subprocess
import sys

import pytest

from tensorlite.backends.cpu.malloc import _SETTINGS

# The page faults of ten rounds that make and drop the same four arrays of 8 MB, after a round to get them.
COUNT_FAULTS = """
import resource
import numpy as np
import tensorlite as tl

def round():
    arrays = [np.ones(1_000_000) for _ in range(4)]

round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def faults(**settings: str) -> int:
    env = {name: value for name, value in os.environ.items() if name not in (*_SETTINGS, "TENSORLITE_MALLOC")}
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS], env=env | settings, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def test_a_round_costs_no_page_faults():
    assert faults() < 100


@pytest.mark.parametrize(
    "settings", [{"TENSORLITE_MALLOC": "system"}, {"MALLOC_TRIM_THRESHOLD_": "131072"}], ids=lambda s: next(iter(s))
)
def test_whoever_sets_malloc_up_is_left_alone(settings):
    assert faults(**settings) > 100
