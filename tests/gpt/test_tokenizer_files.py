"""Test the files of tokenizers: folders of transformers are read, and our tokenizers become such files."""

import json

import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("tiktoken")
from tokenizers import Tokenizer

from gpt import tokenizer as t
from gpt.tokenizer import export
from gpt.tokenizer.bpe import PATTERNS
from gpt.tokenizer.openai import CL100K_FILES, O200K_FILES
from gpt.tokenizer.tokenizer_json import MAX_IDS
from tests.gpt.random_texts import PARTS, random_texts
from tests.gpt.test_huggingface_tokenizer import byte_level, llama2, llama3

TEXTS = [*PARTS, *random_texts(20, 400)]


# --- a folder of a model


def folder(path, **files):
    """Write files with JSON, or with text, and return their folder."""
    for name, content in files.items():
        name = name.replace("__", ".")
        (path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("make", [byte_level, llama3, llama2])
def test_ids_equal_those_of_transformers(make, tmp_path):
    transformers = pytest.importorskip("transformers")
    names = {"bos_token": "<s>", "eos_token": "</s>" if make is llama2 else "<|end|>"}
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=make(), chat_template="{{ messages }}", **names)
    theirs.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = t.from_folder(tmp_path)
    assert (ours.bos_id, ours.eos_id, ours.stop_ids) == (1, theirs.eos_token_id, {theirs.eos_token_id})
    assert ours.chat_template == "{{ messages }}"
    assert ours.vocab_size == len(theirs)
    for text in TEXTS[:150]:
        second = [1] if ours.add_bos and text.startswith("<s>") else []  # transformers puts a second token there.
        assert second + t.prompt_ids(ours, text, allow_special=True).tolist() == theirs(text).input_ids
        plain = theirs(text, split_special_tokens=True, add_special_tokens=False).input_ids
        assert ours.encode(text).tolist() == plain
        ids = ours.encode(text)
        if ours.decode_bytes(ids)[:2] != b"  ":  # Otherwise transformers removes more than the space that it added.
            assert ours.decode(ids) == theirs.decode(ids.tolist(), clean_up_tokenization_spaces=False)


def test_the_other_files_give_the_roles(tmp_path):
    text = byte_level().to_str()
    read = t.from_folder(
        folder(
            tmp_path,
            tokenizer__json=text,
            tokenizer_config__json={"bos_token": {"content": "<s>"}, "add_bos_token": True, "eos_token": None,
                                    "chat_template": [{"name": "tool", "template": "a"},
                                                      {"name": "default", "template": "b<|im_start|>"}]},
            generation_config__json={"eos_token_id": [2, 5], "bos_token_id": 7},
            config__json={"eos_token_id": 3},
        )
    )  # fmt: skip
    assert (read.bos_id, read.add_bos, read.eos_id, read.stop_ids) == (1, True, 2, {2, 3, 5})
    assert read.chat_template == "b<|im_start|>"
    assert t.prompt_ids(read, "the").tolist()[0] == 1
    folder(tmp_path, chat_template__jinja="c")
    assert t.from_folder(tmp_path).chat_template == "c"
    # The end of a turn that only the template has is one, too.
    values = json.loads(text.replace("<|im_start|>", "<|im_end|>"))
    folder(tmp_path, tokenizer__json=values, chat_template__jinja="{{ x }}<|im_end|>", tokenizer_config__json={})
    assert t.from_folder(tmp_path).stop_ids == {2, 3, 5, values["model"]["vocab"]["<|im_end|>"]}
    assert t.from_folder(tmp_path).bos_id == 7


def test_the_two_files_of_gpt2(tmp_path):
    model = json.loads(byte_level().to_str())["model"]
    vocab = {token: i - 3 for token, i in model["vocab"].items() if i > 2}
    vocab["<|endoftext|>"] = len(vocab)
    merges = "#version: 0.2\n" + "\n".join(" ".join(merge) for merge in model["merges"]) + "\n"
    ours = t.from_folder(folder(tmp_path, vocab__json=vocab, merges__txt=merges))
    assert ours.special_tokens == {"<|endoftext|>": len(vocab) - 1}
    same = byte_level()
    same.encode_special_tokens = True
    for text in TEXTS[:100]:
        assert ours.encode(text).tolist() == [i - 3 for i in same.encode(text).ids]


def test_the_id_that_each_gpt2_has_is_none_in_a_smaller_vocabulary(tmp_path):
    config = {"eos_token_id": 50256, "bos_token_id": 50256}
    folder(tmp_path, tokenizer__json=byte_level().to_str(), generation_config__json=config)
    ours = t.from_folder(tmp_path)
    assert (ours.bos_id, ours.eos_id, ours.stop_ids) == (None, None, frozenset())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "tokenizer.json: there is no such file"), ({"tokenizer__json": "{"}, "tokenizer.json: expected JSON"),
        ({"tokenizer_config__json": "[]"}, "tokenizer_config.json: expected a JSON object"),
        ({"tokenizer_config__json": {"eos_token": "nope"}}, "tokenizer_config.json: eos_token: 'nope' is not in"),
        ({"tokenizer_config__json": {"bos_token": 3}}, "bos_token: 3 is not in"),
        ({"tokenizer_config__json": {"chat_template": 3}}, "tokenizer_config.json: chat_template: expected a text"),
        ({"generation_config__json": {"eos_token_id": [1, 10**6]}}, "generation_config.json: eos_token_id: expected"),
        ({"config__json": {"eos_token_id": "1"}}, "config.json: eos_token_id"),
        ({"vocab__json": {"a": 0}, "merges__txt": "a b", "tokenizer__json": None}, "merges"),
    ],
)  # fmt: skip
def test_a_bad_folder_is_one_clear_error(files, message, tmp_path):
    if files and "tokenizer__json" not in files:
        files = {"tokenizer__json": byte_level().to_str()} | files
    folder(tmp_path, **{name: content for name, content in files.items() if content is not None})
    with pytest.raises(t.TokenizerError, match=message) as caught:
        t.from_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_file_that_is_not_utf8_is_an_error(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b"\xff")
    with pytest.raises(t.TokenizerError, match="not UTF-8"):
        t.from_folder(tmp_path)


# --- our tokenizers as files


@pytest.fixture(scope="module")
def bpe():
    trained = t.BPETokenizer.train("".join(TEXTS), 400)
    return t.BPETokenizer(trained.tokens, trained.pattern, {"<|endoftext|>": 400})


def test_a_bpe_becomes_a_tokenizer_json(bpe):
    theirs = Tokenizer.from_str(t.to_tokenizer_json(bpe))
    allowed = [theirs.encode(text).ids for text in TEXTS]
    assert allowed == [bpe.encode(text, allow_special=True).tolist() for text in TEXTS]
    ours = t.HuggingFaceTokenizer(t.to_tokenizer_json(bpe))
    for text in [*TEXTS, "<|endoftext|>"]:
        assert ours.encode(text).tolist() == bpe.encode(text).tolist()
        assert theirs.decode(bpe.encode(text)) == text
    assert ours.encode("<|endoftext|>", allow_special=True).tolist() == [400]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ids_without_a_token_and_each_pattern_are_kept(bpe, pattern):
    """cl100k_base and o200k_base leave out ids between their tokens and special tokens."""
    holes = t.BPETokenizer(bpe.tokens, pattern, {"<|a|>": 402, "<|b|>": 405})
    assert holes.vocab_size == 406
    assert holes.decode([401, 402, 404]) == "<|a|>"
    assert t.from_dict(holes.to_dict()).vocab_size == 406
    ours = t.HuggingFaceTokenizer(t.to_tokenizer_json(holes))
    assert ours.vocab_size == 406
    for text in [*TEXTS, "x<|b|>y"]:
        assert ours.encode(text, allow_special=True).tolist() == holes.encode(text, allow_special=True).tolist()
    with pytest.raises(t.TokenizerError, match="special tokens follow"):
        t.BPETokenizer(bpe.tokens, pattern, {"<|a|>": MAX_IDS})


def test_characters_become_a_tokenizer_json():
    char = t.CharTokenizer.train("hello wörld\n▁")
    ours = t.HuggingFaceTokenizer(t.to_tokenizer_json(char))
    assert ours.encode("öh ▁\n").tolist() == char.encode("öh ▁\n").tolist()
    assert ours.decode(ours.encode("öh ▁\n")) == "öh ▁\n"
    with pytest.raises(t.CharacterError, match="'z' at position 2 has no token"):
        ours.encode("hez")


def test_a_conversion_with_other_ids_is_refused(bpe, monkeypatch):
    """tiktoken merges any neighbours that are a token together, so a list of one pair for each token is too short."""
    tokens = [*(bytes([b]) for b in range(256)), b"ab", b"bc", b"abc"]
    made = export.bpe_json

    def one_pair(tokenizer, ignore_merges=False):
        values = json.loads(made(tokenizer, ignore_merges))
        values["model"]["merges"] = [pair for pair in values["model"]["merges"] if pair != ["ab", "c"]]
        return json.dumps(values)

    assert t.to_tokenizer_json(t.BPETokenizer(tokens, PATTERNS[0]))
    monkeypatch.setattr(export, "bpe_json", one_pair)
    with pytest.raises(t.TokenizerError, match=r"has the ids \[.*\] and would get \[.*\]. This vocabulary cannot"):
        t.to_tokenizer_json(t.BPETokenizer(tokens, PATTERNS[0]))
    with pytest.raises(t.TokenizerError, match="no rule for the pattern"):
        t.to_tokenizer_json(t.BPETokenizer(tokens, r"\w+|\W"))


def test_the_files_load_in_transformers(bpe, tmp_path):
    transformers = pytest.importorskip("transformers")
    for name, content in t.to_files(bpe).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == bpe.eos_id == 400
    assert [theirs(text).input_ids for text in TEXTS[:50]] == [bpe.encode(text).tolist() for text in TEXTS[:50]]
    source = t.HuggingFaceTokenizer(byte_level().to_str(), bos_id=1, eos_id=2, add_bos=True, chat_template="{{ x }}")
    for name, content in t.to_files(source).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("the").input_ids == t.prompt_ids(source, "the").tolist()
    again = t.from_folder(tmp_path)
    assert (again.bos_id, again.eos_id, again.add_bos, again.chat_template) == (1, 2, True, "{{ x }}")


# --- OpenAI's encodings


@pytest.mark.parametrize(("cls", "files"), [(t.CL100KTokenizer, CL100K_FILES), (t.O200KTokenizer, O200K_FILES)])
def test_openai_encodings(cls, files, tmp_path, monkeypatch):
    """The files are large, so a few tokens stand for them."""
    asked = []
    ranks = {bytes([b]): b for b in range(256)} | {b"he": 256, b" the": 257}
    values = {"mergeable_ranks": ranks, "special_tokens": {"<|endoftext|>": 259, "<|endofprompt|>": 262}}
    monkeypatch.setattr("gpt.tokenizer.openai.fetch", lambda file, folder: asked.append((file, folder)))
    monkeypatch.setattr("tiktoken_ext.openai_public.ENCODING_CONSTRUCTORS", {cls.kind: lambda: values})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    made = cls.load()
    assert asked == [(file, tmp_path) for file in files]
    assert (made.vocab_size, made.eos_id, made.stop_ids) == (263, 259, {259})
    assert made.encode("<|endoftext|>", allow_special=True).tolist() == [259]
    assert 259 not in made.encode("<|endoftext|>")
    assert made.decode([258, 259]) == "<|endoftext|>"
    again = t.from_dict(json.loads(json.dumps(made.to_dict())))
    assert type(again) is cls
    assert again.encode("he, the 1234").tolist() == made.encode("he, the 1234").tolist()
    assert t.expected_vocab_size(t.kinds.DataConfig(tokenizer=cls.kind)) == cls.size


@pytest.mark.parametrize(("kind", "pattern"), [("cl100k_base", PATTERNS[2]), ("o200k_base", PATTERNS[3])])
def test_the_patterns_are_those_of_tiktoken(kind, pattern, monkeypatch):
    from tiktoken_ext import openai_public

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *args, **options: {})
    assert openai_public.ENCODING_CONSTRUCTORS[kind]()["pat_str"] == pattern
    special = openai_public.ENCODING_CONSTRUCTORS[kind]()["special_tokens"]
    size = {"cl100k_base": t.CL100KTokenizer, "o200k_base": t.O200KTokenizer}[kind].size
    assert max(special.values()) + 1 == size
