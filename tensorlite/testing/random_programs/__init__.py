"""Random programs of many ops, that shrink to the op that is wrong.

    from hypothesis import given
    from tensorlite.testing import programs

    @given(programs(ops=[my_op]))
    def test_my_op_among_others(program):
        program.check()

A program is drawn as a list of ops with numbers for their operands. A number counts back from the newest value, modulo
the number of values that fit. So a program remains valid when steps are deleted, and shrinking, which deletes all steps
it can, ends with the step that is wrong.
"""

from .program import Program
from .strategy import programs

__all__ = ["Program", "programs"]
