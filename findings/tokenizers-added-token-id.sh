#!/bin/sh
# tokenizers gives an added token another id than its file says, without a word.
#
# Expected: `tokenizer.json` says the id of each added token, so the token has it, or there is an error.
# Found (tokenizers 0.23.3): added tokens that are not in the model's vocabulary are counted from its size on. Where a
# file leaves ids out between the two, as cl100k_base does, each later id is too small by the size of the gap.
# tensorlite compares the ids, and fills the gap when it writes such a file (gpt/tokenizer/huggingface.py, made).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check tokenizers==0.23.3
cd "$folder"
venv/bin/python - <<'END'
import json

import tokenizers
from tokenizers import Tokenizer

print("tokenizers", tokenizers.__version__)
flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
added = [{"id": 9, "content": "<end>", "special": True, **flags}]
model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
read = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": added, "model": model}))
print("in the file: 9, read:", read.token_to_id("<end>"))
assert read.token_to_id("<end>") == 2
END
