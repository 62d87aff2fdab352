#!/bin/sh
# In tokenizers, `encode_special_tokens = True` does not keep a typed `</s>` from becoming the end-of-text token.
#
# Expected: with that switch the text of a special token is encoded as any text. transformers sets it for
# `split_special_tokens=True`, which one needs for what a user types.
# Found (tokenizers 0.23.3): the switch only stops the search for added tokens. A unigram model has the special tokens
# among its pieces, so its best split of the text contains them. A byte-pair model does the same with `ignore_merges`.
# tensorlite gives such pieces another name in a second tokenizer (gpt/tokenizer/tokenizer_json.py, without_special).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check tokenizers==0.23.3
cd "$folder"
venv/bin/python - <<'END'
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers

print("tokenizers", tokenizers.__version__)
letters = [(letter, -2.0) for letter in "a</s>"]
unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *letters], unk_id=0))
vocab = {"</s>": 0, "<": 1, "/": 2, "s": 3, ">": 4}
bpe = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
plain = Tokenizer(models.BPE(vocab=vocab, merges=[]))
for name, tokenizer in (("unigram", unigram), ("BPE, ignore_merges", bpe), ("BPE", plain)):
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.encode_special_tokens = True
    print(f"{name}: {tokenizer.encode('</s>').tokens}")
assert unigram.encode("a</s>").tokens == ["a", "</s>"]
assert bpe.encode("</s>").tokens == ["</s>"]
assert plain.encode("</s>").tokens == ["<", "/", "s", ">"]
END
