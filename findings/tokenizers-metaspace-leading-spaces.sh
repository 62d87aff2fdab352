#!/bin/sh
# The Metaspace decoder of tokenizers removes every space at the beginning of a text, not only the one it added.
#
# Expected: the pre-tokenizer puts one U+2581 before a text, so the decoder removes one.
# Found (tokenizers 0.23.3): it removes all of them from the first token. Three spaces before a word, of which a
# vocabulary may have a token, are gone after encoding and decoding.
# tensorlite removes one space in `decode`, and none in `decode_bytes` (gpt/tokenizer/huggingface.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check tokenizers==0.23.3
cd "$folder"
venv/bin/python - <<'END'
import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

print("tokenizers", tokenizers.__version__)
pieces = [("<unk>", 0.0), ("\u2581\u2581\u2581a", -1.0), ("\u2581b", -1.0)]
tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
tokenizer.decoder = decoders.Metaspace()
ids = tokenizer.encode("   a b").ids
print(repr("   a b"), "->", repr(tokenizer.decode(ids)))
assert ids == [1, 2]
assert tokenizer.decode(ids) == "a b"
END
