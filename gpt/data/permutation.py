"""Random permutations of any size, of which each entry is computed from its place alone.

So an order of a billion sequences needs no memory, and a run continues at any place of it. A place is written as two
digits (l, r) with l < a, r < b and a b >= n. Rounds add to one digit a random function of the other (a Feistel network;
Luby & Rackoff 1988, "How to Construct Pseudorandom Permutations from Pseudorandom Functions"). A result of n or more is
taken as a place again, until one is below n (Black & Rogaway 2002, "Ciphers with Arbitrary Finite Domains").
"""

import math

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8
SMALLEST = 8  # values of a digit; fewer values would not mix well
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of splitmix64 (Steele et al. 2014)


def permuted(places: NDArray[np.int64], n: int, *seed: int) -> NDArray[np.int64]:
    """Return the entries at some places of a random permutation of 0, ..., n - 1.

    places: integers from 0 to n - 1. seed: integers from 0 that choose the permutation.
    """
    keys = np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64).astype(np.uint64)
    a = max(SMALLEST, math.isqrt(max(n - 1, 0)) + 1)
    b = max(SMALLEST, -(-n // a))
    result = np.asarray(places, np.uint64)
    outside = np.ones(result.shape, bool)
    while outside.any():
        result[outside] = scrambled(result[outside], np.uint64(a), np.uint64(b), keys)
        outside = result >= n
    return result.astype(np.int64)


def scrambled(
    values: NDArray[np.uint64], a: np.uint64, b: np.uint64, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Return the entries at places of a random permutation of a b numbers."""
    left, right = values // b, values % b
    for i in range(0, len(keys), 2):
        left = (left + mixed(right ^ keys[i])) % a
        right = (right + mixed(left ^ keys[i + 1])) % b
    return left * b + right


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64 random bits for each value, those of splitmix64."""
    values = (values ^ (values >> np.uint64(30))) * MIX[0]
    values = (values ^ (values >> np.uint64(27))) * MIX[1]
    return values ^ (values >> np.uint64(31))
