#!/bin/sh
# A byte-level BPE of tokenizers loses characters that its training text did not have, without an error.
#
# Expected: byte-level encoding can represent any text, because every text is made of 256 bytes.
# Found (tokenizers 0.23.3): the trainer learns only the bytes that occur, unless `initial_alphabet` lists all 256.
# Text with other characters is encoded without them, and decoding gives a shorter text.
# tensorlite passes the whole alphabet and checks that all bytes are in the vocabulary (gpt/tokenizer/bpe.py). That the
# alphabet is added beyond `vocab_size`, as the last lines show, is a second surprise.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check tokenizers==0.23.3
cd "$folder"
venv/bin/python - <<'END'
import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def train(vocab_size, alphabet):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["to be or not to be"], trainer)
    return tokenizer


alphabet = pre_tokenizers.ByteLevel.alphabet()
text = "to be a zebra"
print("tokenizers", tokenizers.__version__)
for name, tokenizer in ("default", train(300, [])), ("all bytes", train(300, alphabet)):
    print(f"{name}: {text!r} comes back as {tokenizer.decode(tokenizer.encode(text).ids)!r}")
small = train(100, alphabet)
print("vocab_size=100 gives", small.get_vocab_size(), "tokens")
assert train(300, []).decode(train(300, []).encode(text).ids) == "to be  ebr"
assert train(300, alphabet).decode(train(300, alphabet).encode(text).ids) == text
assert small.get_vocab_size() == 256
END
