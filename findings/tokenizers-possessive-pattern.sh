#!/bin/sh
# The pattern of cl100k_base means something else in tokenizers: numbers are no longer cut after three digits.
#
# Expected: a regular expression that both libraries accept splits a text alike.
# Found (tokenizers 0.23.3, tiktoken 0.14.0): tiktoken's pattern has `\p{N}{1,3}+`. In its engine the `+` makes the
# quantifier possessive. Oniguruma, in tokenizers, reads it as "one or more times one to three digits".
# tensorlite exports cl100k_base with the pattern that has no possessive quantifiers (gpt/tokenizer/export.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check tokenizers==0.23.3 tiktoken==0.14.0
cd "$folder"
venv/bin/python - <<'END'
import tiktoken
import tokenizers
from tokenizers import Regex, pre_tokenizers

print("tokenizers", tokenizers.__version__, "tiktoken", tiktoken.__version__)
pattern = r"\p{N}{1,3}+|\P{N}+"
split = pre_tokenizers.Split(Regex(pattern), "isolated")
theirs = [part for part, _ in split.pre_tokenize_str("in 1234567")]
# Each run of digits of at most three is a token here, and no merge crosses two parts.
tokens = [bytes([b]) for b in range(256)] + [b"12", b"123", b"45", b"456", b"1234", b"1234567"]
ranks = {token: i for i, token in enumerate(tokens)}
encoding = tiktoken.Encoding("test", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
ours = [encoding.decode([i]) for i in encoding.encode("1234567")]
print("tokenizers:", theirs, " tiktoken:", ours)
assert theirs == ["in ", "1234567"]
assert ours == ["123", "456", "7"]
END
