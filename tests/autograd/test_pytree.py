"""Trees: nested tuples, lists and dicts."""

from typing import NamedTuple

import pytest

from tensorlite.pytree import tree_leaves, tree_map, tree_unflatten


class Pair(NamedTuple):
    a: object
    b: object


TREE = {"x": [1, (2, None)], "p": Pair(3, {"q": 4}), "empty": ()}


def test_leaves_come_in_order():
    assert tree_leaves(TREE) == [1, 2, None, 3, 4]
    assert tree_leaves(5) == [5]
    assert tree_leaves([]) == []


def test_map_keeps_the_structure_and_the_types():
    mapped = tree_map(str, TREE)
    assert mapped == {"x": ["1", ("2", "None")], "p": Pair("3", {"q": "4"}), "empty": ()}
    assert type(mapped["p"]) is Pair
    assert tree_map(str, 5) == "5"


def test_unflatten_is_the_inverse_of_leaves():
    assert tree_unflatten(tree_leaves(TREE), TREE) == TREE
    with pytest.raises(ValueError, match="expected 5 leaves, got 4"):
        tree_unflatten(range(4), TREE)
