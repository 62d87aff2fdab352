"""The exercises of docs/learn: files to fill in, and the tests that check them.

    python -m tensorlite.learn              # the chapters, and what is solved in this folder
    python -m tensorlite.learn start 1      # write chapter_1.py, with three functions to fill in
    python -m tensorlite.learn check 1      # check them

In a notebook, ``check(1, globals())`` checks the functions of its cells.
"""

from .learning import check, start

__all__ = ["check", "start"]
