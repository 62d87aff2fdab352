"""Test tokenizers from a tokenizer.json against the package tokenizers."""

import json

import numpy as np
import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("tiktoken")
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from gpt import tokenizer as t
from gpt.checkpoint import native
from gpt.config import Config, DataConfig
from gpt.data.dataset import encode
from gpt.data.text import TextFile
from gpt.generation.text_stream import stream
from gpt.model import build_model
from gpt.tokenizer.bpe import byte_alphabet
from gpt.tokenizer.patterns import LLAMA3, QWEN2
from gpt.tokenizer.pieces import between_words
from tensorlite import optim
from tests.gpt.random_texts import PARTS, random_texts

TEXTS = random_texts(0, 300)
SPECIAL = ["<|end|>", "<s>", "<|im_start|>"]


def byte_level(*steps, normalizer=None, alphabet=None, **options):
    """Return a trained byte-level BPE of `tokenizers`; its pre-tokenizer ends with ByteLevel."""
    model = Tokenizer(models.BPE(**options))
    if normalizer:
        model.normalizer = normalizer
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not any("Split" in repr(s) for s in steps))
    model.pre_tokenizer = pre_tokenizers.Sequence([*steps, last])
    model.decoder = decoders.ByteLevel()
    letters = alphabet or sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=letters, show_progress=False
    )
    model.train_from_iterator(TEXTS if alphabet is None else ["abc"], trainer)
    return model


def llama3():
    model = byte_level(pre_tokenizers.Split(Regex(LLAMA3), "isolated"), ignore_merges=True)
    model.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return model


def with_bytes(tokens):
    return [*tokens, *(f"<0x{i:02X}>" for i in range(256))]


def llama2(byte_tokens=True):
    """Return a BPE as SentencePiece's: U+2581 for a space, and tokens for bytes."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(
        ["the quick brown fox don't camelCase 123 4567 é ▁ "] * 3,
        trainers.BpeTrainer(vocab_size=150, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False),
    )
    values = json.loads(trained.to_str())
    vocab = values["model"]["vocab"]
    for token in with_bytes([]) if byte_tokens else ():
        vocab[token] = len(vocab)
    values["model"] |= {"byte_fallback": byte_tokens, "fuse_unk": True}
    model = Tokenizer.from_str(json.dumps(values))
    model.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    model.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    model.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return model


def unigram():
    """Return a unigram model with tokens for bytes."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((b, -20.0) for b in with_bytes([]))]
    pieces += [(piece, -3.0 - i / 7) for i, piece in enumerate(["▁", "▁the", "the", "qu", "ick", "o", "x", "e", "▁x"])]
    model = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    model.normalizer = normalizers.NFKC()
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    model.add_special_tokens(["<unk>", "<s>", "</s>"])
    return model


MAKERS = {
    "gpt2": byte_level,
    "smollm": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "llama3": llama3,
    "qwen2": lambda: byte_level(
        pre_tokenizers.Split(Regex(QWEN2), "isolated"), normalizer=normalizers.NFC()
    ),
    "llama2": llama2,
    "unigram": unigram,
}


@pytest.fixture(scope="module", params=MAKERS)
def pair(request):
    """Return the tokenizer of the package, and ours from its file."""
    theirs = MAKERS[request.param]()
    return theirs, t.HuggingFaceTokenizer(theirs.to_str())


def expected_text(theirs, text):
    """Return the text that tokens stand for."""
    normal = theirs.normalizer.normalize_str(text) if theirs.normalizer else text
    return normal.replace("▁", " ") if "▁" in theirs.to_str() and "ByteLevel" not in theirs.to_str() else normal


def test_ids_equal_the_reference(pair):
    theirs, ours = pair
    texts = [*PARTS, *random_texts(1, 1500)]
    theirs.encode_special_tokens = False
    allowed = theirs.encode_batch(texts, add_special_tokens=False)
    theirs.encode_special_tokens = True
    plain = theirs.encode_batch(texts, add_special_tokens=False)
    special = set(ours.special_tokens.values())
    assert len(special) == 3
    seen = set()
    for text, a, b in zip(texts, allowed, plain, strict=True):
        ids = ours.encode(text)
        assert ids.dtype == np.int64
        assert not special & set(ids.tolist()), text
        if special & set(b.ids):  # The switch of `tokenizers` does not keep a unigram model from it.
            assert isinstance(theirs.model, models.Unigram)
            assert ours.decode_bytes(ids) == ours.decode_bytes(b.ids)
        else:
            assert ids.tolist() == b.ids, text
        assert ours.encode(text, allow_special=True).tolist() == a.ids, text
        seen |= special & set(a.ids)
    assert len(seen) >= 1


def test_bytes_are_those_of_the_text(pair):
    theirs, ours = pair
    for text in random_texts(2, 300):
        if isinstance(theirs.model, models.Unigram):
            text = text.replace("<0x0A>", "")  # `tokenizers` makes the byte of it, as the vocabulary has that piece.
        ids = ours.encode(text)
        joined = b"".join(ours.decode_bytes([i]) for i in ids)
        assert joined == ours.decode_bytes(ids)
        normal = expected_text(theirs, text)
        assert joined.decode() in (normal, " " + normal)
        assert ours.decode(ids) in (normal, normal.removeprefix(" "))
        # Nothing but whole characters is written, however the tokens cut them.
        assert "".join(stream(ours, ids.tolist())) == joined.decode()


def test_it_turns_into_json_and_back(pair):
    _, ours = pair
    again = t.from_dict(json.loads(json.dumps(ours.to_dict())))
    assert again.to_dict() == ours.to_dict()
    for text in TEXTS[:50]:
        assert again.encode(text).tolist() == ours.encode(text).tolist()
        assert again.decode(again.encode(text)) == ours.decode(ours.encode(text))


def test_a_text_in_pieces_has_the_same_ids(pair, tmp_path):
    theirs, ours = pair
    path = tmp_path / "text.txt"
    path.write_text("".join(TEXTS), encoding="utf-8")
    file = TextFile(path, "text")
    whole = ours.encode("".join(file.pieces()))
    assert encode(file, 0, None, ours).tolist() == whole.tolist()
    small = ["".join(TEXTS)[i : i + 50] for i in range(0, len("".join(TEXTS)), 50)]
    parts = list(between_words(small, ours.cuts_before))
    assert "".join(parts) == "".join(TEXTS)
    assert [i for part in parts for i in ours.encode(part).tolist()] == ours.encode("".join(TEXTS)).tolist()
    assert bool(ours.cuts_before) == (len(parts) > 1) == (theirs.pre_tokenizer is not None and "Meta" not in
                                                         theirs.to_str())  # fmt: skip


def test_text_without_a_token_is_an_error():
    """SmolLM2 has no token for 21 of the 256 bytes; `tokenizers` leaves such characters out without a word."""
    missing = bytes([0x0A, 0x83, 0xC7])
    letters = sorted(letter for letter, byte in byte_alphabet().items() if byte not in missing)
    model = byte_level(alphabet=letters)
    ours = t.HuggingFaceTokenizer(model.to_str())
    assert model.decode(model.encode("a\nb").ids) == "ab"
    for text, character, position, byte in (
        ("a\nb", "\n", 1, "0x0a"), ("ok ǆ", "ǆ", 3, "0xc7"), ("é" * 3 + "ッ\n", "ッ", 3, "0x83"),
    ):  # fmt: skip
        with pytest.raises(t.CharacterError, match=f"at position {position} has no token.* byte {byte}") as caught:
            ours.encode(text)
        assert repr(character) in str(caught.value)
        assert caught.value.position == position
    for text in random_texts(3, 400):
        try:
            ids = ours.encode(text)
        except t.CharacterError:
            assert model.decode(model.encode(text).ids) != text
        else:
            assert ours.decode(ids) == text


def test_the_unknown_token_is_never_made_of_text():
    ours = t.HuggingFaceTokenizer(llama2(byte_tokens=False).to_str())
    assert ours.decode(ours.encode("the fox")) == "the fox"
    with pytest.raises(t.CharacterError, match="'Z' at position 4 has no token"):
        ours.encode("the Z")
    assert ours.encode("<unk>", allow_special=True).tolist() == [0]


def test_an_added_token_that_is_not_special_is_always_matched():
    model = byte_level()
    model.add_tokens(["<think>", "日本 語"])
    ours = t.HuggingFaceTokenizer(model.to_str())
    ids = ours.encode("a<think>日本 語")
    assert ids.tolist() == model.encode("a<think>日本 語").ids
    assert len(ids) == 3
    assert ours.decode(ids) == "a<think>日本 語"
    assert "<think>" not in ours.special_tokens
    assert ours.cuts_before == ""


def test_merges_do_not_make_a_special_token_of_text():
    values = json.loads(byte_level().to_str())
    model = values["model"]
    model["merges"] += [["<", "s"], ["<s", ">"]]
    model["vocab"]["<s"] = len(model["vocab"])
    values["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    theirs = Tokenizer.from_str(json.dumps(values))
    theirs.encode_special_tokens = True
    assert 1 in theirs.encode("x<s>").ids
    ours = t.HuggingFaceTokenizer(json.dumps(values))
    assert 1 not in ours.encode("x<s>")
    assert ours.decode(ours.encode("x<s>")) == "x<s>"
    assert ours.encode("<s>", allow_special=True).tolist() == [1]
    # A whole word that is a token needs no merge.
    values["model"] |= {"ignore_merges": True, "merges": model["merges"][:-2]}
    assert 1 not in t.HuggingFaceTokenizer(json.dumps(values)).encode("<s>")


def test_a_prompt_begins_with_the_first_token_if_the_model_wants_it():
    ours = t.HuggingFaceTokenizer(llama3().to_str())
    assert (ours.bos_id, ours.add_bos) == (1, True)
    assert t.start_ids(ours).tolist() == [1]
    assert t.prompt_ids(ours, "the").tolist() == [1, *ours.encode("the").tolist()]
    assert t.prompt_ids(ours, "<s>the", allow_special=True).tolist() == [1, *ours.encode("the").tolist()]
    plain = t.HuggingFaceTokenizer(byte_level().to_str())
    assert (plain.bos_id, plain.add_bos, plain.stop_ids) == (None, False, frozenset())
    assert t.prompt_ids(plain, "the").tolist() == plain.encode("the").tolist()


def test_a_last_token_of_the_post_processor_is_not_a_first_one():
    model = byte_level()
    model.post_processor = processors.TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", 0)])
    ours = t.HuggingFaceTokenizer(model.to_str())
    assert (ours.bos_id, ours.add_bos) == (None, False)
    assert t.prompt_ids(ours, "the").tolist() == model.encode("the", add_special_tokens=False).ids
    model.post_processor = processors.RobertaProcessing(("<|end|>", 0), ("<s>", 1))
    assert t.HuggingFaceTokenizer(model.to_str()).bos_id == 1


def test_a_larger_vocabulary_of_the_model_has_ids_without_text():
    ours = t.HuggingFaceTokenizer(byte_level().to_str(), vocab_size=1000)
    assert ours.vocab_size == 1000
    assert ours.decode([999, ours.encode("x")[0]]) == "x"
    with pytest.raises(t.TokenError, match="token id 1000"):
        ours.decode([1000])
    with pytest.raises(t.TokenizerError, match="outside a vocabulary of 100 tokens"):
        t.HuggingFaceTokenizer(byte_level().to_str(), vocab_size=100)


def test_a_checkpoint_stores_it(tmp_path):
    ours = t.HuggingFaceTokenizer(llama2().to_str(), bos_id=1, eos_id=2, stop_ids=[2], chat_template="{{ x }}")
    config = Config.load("gpt-nano", {"data.tokenizer": "huggingface"}).with_vocab_size(ours.vocab_size)
    model = build_model(config.model, "cpu")
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    native.save(
        tmp_path / "x.safetensors", config=config, tokenizer=ours, step=1, model=model, optimizer=optimizer, state={}
    )
    again = native.load(tmp_path / "x.safetensors").tokenizer
    assert again.to_dict() == ours.to_dict()
    assert again.stop_ids == {2}


def test_a_new_model_cannot_choose_it():
    with pytest.raises(t.TokenizerError, match="comes with a model"):
        t.build("a", "a", DataConfig(tokenizer="huggingface"))
    assert t.expected_vocab_size(DataConfig(tokenizer="huggingface")) is None


# --- bad files


def small(**changes):
    """Return a small tokenizer.json with other values of the model, or of the file."""
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    inside = {key: value for key, value in changes.items() if key in ("type", "vocab", "merges", "unk_token", "unk_id")}
    outside = {key: value for key, value in changes.items() if key not in inside}
    return json.dumps({"decoder": {"type": "Fuse"}, "model": model | inside} | outside)


def added(**values):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return small(added_tokens=[{"id": 3, "content": "<s>", "special": True} | flags | values])


BAD = [
    ("not JSON", "expected JSON"), ("", "expected JSON"), ("[" * 100_000, "too deeply nested"),
    ("[]", "a JSON object"), ("{}", "'model' is missing"), ('{"model": 1}', "model: expected dict"),
    (small(type="WordPiece"), "model.type"), (small(type=["BPE"]), "model.type"),
    (small(vocab={}, merges=[]), "at least one token"), (small(vocab=[]), "expected dict"),
    (small(vocab={"a": 0, "b": 0, "ab": 2}), "have the same id 0"), (small(vocab={"a": 0, "b": -1, "ab": 2}), "-1"),
    (small(vocab={"a": 0, "b": 1, "ab": 2**40}), "expected ids from 0"),
    (small(vocab={"a": 0.0}, merges=[]), "expected ids"), (small(vocab={"a": True, "b": 0, "ab": 2}), "got True"),
    (small(merges=[["a", "c"]]), "'c' is not in"), (small(merges=["a b c"]), "expected two tokens"),
    (small(merges=[["b", "a"]]), "'ba' is not in"), (small(merges=[3]), "expected two tokens"),
    (small(merges={}), "merges: expected list"), (small(merges=[["", "a"]]), "expected two tokens"),
    (small(unk_token="?"), "unk_token: '\\?' is not in"),
    (small().replace('"b": 1', '"a": 1'), "the key 'a' is there twice"),
    (small(vocab={"\ud800": 0}, merges=[]), "not a text"),
    (small(type="Unigram", vocab=[["a", "b"]]), "a token and its score"),
    (small(type="Unigram", vocab=[["a", 0.0], ["a", 0.0]]), "twice"),
    (small(type="Unigram", vocab=[["a", 0.0]], unk_id=1), "unk_id"),
    (small(pre_tokenizer={"type": "Whitespace"}), "drops the white space"), (small(pre_tokenizer=[]), "a step"),
    (small(decoder={"type": "WordPiece"}), "decoder: expected"),
    (small(decoder={"type": "Wrong"}), "decoder: expected"),
    (small(decoder={"type": "ByteLevel"}), "not in the pre-tokenizer"),
    (small(pre_tokenizer={"type": "ByteLevel"}), "not among its steps"),
    (small(post_processor={"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}],
                           "special_tokens": {}}), "tokenizer.json: "),
    (small(normalizer={"type": "Wrong"}), "tokenizer.json: "),
    (small(added_tokens={}), "added_tokens: expected list"), (small(added_tokens=[1]), "expected an object"),
    (added(id=0), "0 is the id of 'a'"), (added(id=-1), "-1"), (added(content="a"), "'a' has the ids 0 and 3"),
    (added(content=""), "expected a text"), (added(special=1), "special"), (added(id="3"), "id: expected int"),
    (added(id=7), "'<s>' has the id 7"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_bad_file_is_one_clear_error(text, message, capfd):
    with pytest.raises(t.TokenizerError, match=message) as caught:
        t.HuggingFaceTokenizer(text)
    assert len(str(caught.value)) < 500
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "change",
    [{"bos_id": 9}, {"bos_id": "1"}, {"eos_id": -1}, {"stop_ids": [9]}, {"stop_ids": 1}, {"stop_ids": ["1"]},
     {"chat_template": 1}, {"vocab_size": 2}, {"vocab_size": 2**40}, {"tokenizer": 1}, {"add_bos": 1}, {"extra": 1}],
)  # fmt: skip
def test_a_broken_description_is_an_error(change):
    with pytest.raises(t.TokenizerError):
        t.from_dict(t.HuggingFaceTokenizer(small()).to_dict() | change)
