#!/bin/sh
# tokenizers and tiktoken split the same text differently with the same tokens in the same order.
#
# Expected: a byte-pair encoding is its tokens in merge order, so it can be moved from one library to the other.
# Found (tokenizers 0.23.3, tiktoken 0.14.0): tokenizers merges only the pairs in its list of merges. tiktoken has no
# such list: it merges any two neighbours whose bytes together are a token. In the vocabulary below, `abc` is made of
# `a` and `bc`. tokenizers stops at `ab`, `c`; tiktoken goes on to `abc`. It also returns a piece that is a token
# without merging at all, even a token that no merge leads to.
# A vocabulary from a single run of BPE training normally has no such tokens, which is why tensorlite may train with
# tokenizers and encode with tiktoken (gpt/tokenizer/bpe.py). One that was extended or pruned by hand may.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check tokenizers==0.23.3 tiktoken==0.14.0
cd "$folder"
venv/bin/python - <<'END'
import tiktoken
import tokenizers
from tokenizers import Tokenizer, models


def split(text, tokens, merges):
    by_merges = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    by_ranks = tiktoken.Encoding(
        "test", pat_str=r"\w+", mergeable_ranks={t.encode(): i for i, t in enumerate(tokens)}, special_tokens={}
    )
    return by_merges.encode(text).tokens, [by_ranks.decode([i]) for i in by_ranks.encode(text)]


print("tokenizers", tokenizers.__version__, "tiktoken", tiktoken.__version__)
found = [
    split("abc", ["a", "b", "c", "ab", "bc", "abc"], [("a", "b"), ("b", "c"), ("a", "bc")]),
    split("abcabc", ["a", "b", "c", "ab", "bc", "abc"], [("a", "b"), ("b", "c"), ("a", "bc")]),
    split("abcd", ["a", "b", "c", "d", "cd", "abcd"], [("c", "d")]),
]
for ours, theirs in found:
    print("tokenizers:", ours, " tiktoken:", theirs)
assert found[0] == (["ab", "c"], ["abc"])
assert found[1] == (["ab", "c", "ab", "c"], ["abc", "abc"])
assert found[2] == (["a", "b", "cd"], ["abcd"])
END
