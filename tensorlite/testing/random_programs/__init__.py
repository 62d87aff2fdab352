"""Random programs: many ops at once, in an order that nobody thought of, that shrink to the one that is wrong.

    from hypothesis import given
    from tensorlite.testing import programs

    @given(programs(ops=[my_op]))
    def test_my_op_among_others(program):
        program.check()

A program is drawn as a list of ops with numbers for their operands, counted back from the newest value and modulo the
values that fit. So whichever step is deleted, what is left is a program again, and shrinking, which deletes all that
can go, ends with the step at fault.
"""

from .program import Program
from .strategy import programs

__all__ = ["Program", "programs"]
