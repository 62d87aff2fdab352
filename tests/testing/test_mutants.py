"""The checks find wrong gradients and accept right ones. `make mutants` tries each on many more examples."""
import pytest

pytest.importorskip("hypothesis")

from tests.testing import mutants


def named(case):
    return f"{case.f.__name__}: {case.what}"


@pytest.mark.parametrize("case", [b for b in mutants.BUGS if not b.missed], ids=named)
def test_a_wrong_gradient_is_found(case):
    found = mutants.search(case, mutants.BUG_EXAMPLES, shrink=False)
    assert found.caught_by


@pytest.mark.parametrize("what", mutants.SPECS)
def test_a_wrong_op_is_found_by_optest(what):
    assert mutants.failed_cases(mutants.SPECS[what])


@pytest.mark.parametrize("case", [b for b in mutants.BUGS if b.missed], ids=named)
def test_impossible_cases_are_not_found(case):
    assert not mutants.search(case, 100, shrink=False).caught_by


@pytest.mark.parametrize("case", mutants.RIGHT, ids=named)
def test_a_right_gradient_is_accepted(case):
    found = mutants.search(case, 15)
    assert not found.caught_by, found.message
    assert found.checked


@pytest.mark.parametrize("words", ["scale off by 1%", "duplicates in an index", "cotangent changed in place"])
def test_failures_shrink_and_have_short_messages(words):
    (case,) = mutants._chosen(mutants.BUGS, words)
    found = mutants.search(case, 100)
    assert found.size <= 4
    assert len(found.message) < 1000
    assert case.f.__name__ in found.message.splitlines()[0]


def test_the_summary_counts_bugs(capsys):
    assert mutants.main(["scale off", "--examples", "1"]) == 0
    assert "caught 3 of 4, 1 are known to be impossible to find" in capsys.readouterr().out


def test_a_missed_bug_fails_the_run(capsys, monkeypatch):
    monkeypatch.setattr(mutants, "BUGS", [mutants.Case(case.f, case.what, case.signature) for case in mutants.BUGS])
    assert mutants.main(["scale off by 1e-10"]) == 1
    assert "MISSED" in capsys.readouterr().out
