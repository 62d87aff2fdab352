"""Settings that hold for every test."""
import os

try:
    from hypothesis import settings
except ImportError:  # `make gpu-check` runs where pytest is there and hypothesis may not be
    pass
else:
    # A deadline fails on a busy machine only. CI draws the same examples every time, so that it is the change
    # under test that turns it red; everywhere else each run draws new ones.
    settings.register_profile("tensorlite", deadline=None)
    settings.register_profile("tensorlite-ci", deadline=None, derandomize=True)
    settings.load_profile("tensorlite-ci" if os.environ.get("CI") else "tensorlite")
