"""The tokenizer of a folder that Hugging Face's transformers writes."""

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt.tokenizer import tokenizer_json
from gpt.tokenizer.base import TokenizerError
from gpt.tokenizer.huggingface import HuggingFaceTokenizer

# Tokens that end the turn of one side of a conversation. They count where the chat template has them, because some
# files name only the end of a text.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eot|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|end_of_turn|>")

# transformers writes this id into the configuration of each GPT-2, also of one that has fewer tokens.
GPT2_END = 50256

SETTINGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "config.json",
    "chat_template.json",
)


def from_folder(folder: str | Path, vocab_size: int | None = None) -> HuggingFaceTokenizer:
    """Return the tokenizer of a folder with a `tokenizer.json`, or with GPT-2's `vocab.json` and `merges.txt`.

    vocab_size: the size of the model's vocabulary. Raises TokenizerError, with the file, for anything that is wrong.
    """
    folder = Path(folder)
    try:
        files = {name: text for name in SETTINGS if (text := read(folder / name)) is not None}
        if (text := read(folder / "tokenizer.json")) is None:
            vocab, merges = read(folder / "vocab.json"), read(folder / "merges.txt")
            if vocab is None or merges is None:
                raise TokenizerError(
                    "tokenizer.json: there is no such file. Make it with the package transformers: "
                    "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
                )
            text = from_vocab_and_merges(vocab, merges)
        return from_files(text, files, template=read(folder / "chat_template.jinja"), vocab_size=vocab_size)
    except TokenizerError as error:
        raise TokenizerError(f"{str(folder)!r}: {error}") from None


def read(path: Path) -> str | None:
    """Return the text of a file, or None if there is none. Raises TokenizerError."""
    try:
        if path.exists() and not path.is_file():
            raise TokenizerError(f"{path.name}: it is not a file")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise TokenizerError(f"{path.name}: cannot read it: {reason}") from None


def from_files(
    text: str,
    files: Mapping[str, str] | None = None,
    *,
    template: str | None = None,
    vocab_size: int | None = None,
) -> HuggingFaceTokenizer:
    """Return the tokenizer of the texts of files.

    text: the content of `tokenizer.json`. files: those of SETTINGS that there are, by name. template: the content of
    `chat_template.jinja`, which comes before a template in other files.

    The token that begins a text is the `bos_token` of the first file that has one. Stop tokens are the `eos_token`, the
    `eos_token_id`, one or several, and the ends of turns in the chat template. A post-processor says whether the model
    wants a first token; `add_bos_token` says so where there is none. transformers 5 does the same.
    """
    settings = {name: tokenizer_json.parse(content, name) for name, content in (files or {}).items()}
    plain = HuggingFaceTokenizer(text, vocab_size=vocab_size)
    bos = next(named_ids(plain, settings, "bos"), plain.bos_id)
    if template is None:
        template = chat_template(settings)
    ends = list(named_ids(plain, settings, "eos"))
    stop = set(ends)
    stop |= {plain.special_tokens[end] for end in TURN_ENDS if end in plain.special_tokens and end in (template or "")}
    wants = settings.get("tokenizer_config.json", {}).get("add_bos_token")
    return plain.with_roles(
        bos_id=bos,
        eos_id=ends[0] if ends else None,
        add_bos=bool(wants),
        stop_ids=stop,
        chat_template=template,
    )


def named_ids(
    tokenizer: HuggingFaceTokenizer, settings: Mapping[str, Mapping[str, Any]], role: str
) -> Iterator[int]:
    """Yield the ids of the tokens that files name for a role, bos or eos. Raises TokenizerError with file and key."""
    for name, values in settings.items():
        token = values.get(f"{role}_token")
        content = token.get("content") if isinstance(token, dict) else token
        if content is not None:
            if not isinstance(content, str) or content not in tokenizer.vocab:
                raise TokenizerError(f"{name}: {role}_token: {reprlib.repr(token)} is not in the vocabulary")
            yield tokenizer.vocab[content]
        numbers = values.get(f"{role}_token_id")
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if number is None or (number == GPT2_END and number >= tokenizer.vocab_size):
                continue
            if type(number) is not int or not 0 <= number < tokenizer.vocab_size:
                raise TokenizerError(
                    f"{name}: {role}_token_id: expected ids below {tokenizer.vocab_size}, got {reprlib.repr(numbers)}"
                )
            yield number


def chat_template(settings: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the chat template, the one named default where there are several, or None. Raises TokenizerError."""
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = settings.get(name, {}).get("chat_template")
        if isinstance(template, list):
            named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
            template = named.get("default", next(iter(named.values()), None))
        if isinstance(template, str):
            return template
        if template is not None:
            raise TokenizerError(f"{name}: chat_template: expected a text, got {reprlib.repr(template)}")
    return None


def from_vocab_and_merges(vocab: str, merges: str) -> str:
    """Return the `tokenizer.json` for the two files of GPT-2. Raises TokenizerError."""
    tokens = tokenizer_json.parse(vocab, "vocab.json")
    pairs = [line for line in merges.splitlines() if line and not line.startswith("#version")]
    ends = [name for name in ("<|endoftext|>",) if name in tokens]
    return byte_level_json(tokens, pairs, {name: tokens[name] for name in ends})


def byte_level_json(
    vocab: Mapping[str, int], merges: list[Any], special: Mapping[str, int], **options: Any
) -> str:
    """Return the `tokenizer.json` of a byte-level BPE. See `byte_level`, which takes the options, too."""
    return tokenizer_json.compact(byte_level(vocab, merges, special, **options))


def byte_level(
    vocab: Mapping[str, int],
    merges: list[Any],
    special: Mapping[str, int],
    *,
    user_defined: Mapping[str, int] | None = None,
    patterns: tuple[str, ...] | None = None,
    ignore_merges: bool = False,
) -> dict[str, Any]:
    """Return the object in the `tokenizer.json` of a byte-level BPE.

    vocab: tokens in GPT-2's alphabet. special: their special tokens. user_defined: tokens that are matched as a whole
    in a text. patterns: expressions that split a text one after the other; GPT-2's if None.
    """
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": patterns is None}
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns or ()
    ]
    return {
        "version": "1.0",
        "added_tokens": added_tokens(special, user_defined or {}),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, step]},
        "post_processor": None,
        "decoder": step,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": dict(vocab),
            "merges": merges,
        },
    }


def added_tokens(special: Mapping[str, int], user_defined: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the added tokens of a `tokenizer.json`, in the order of their ids."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    entries = [{"id": i, "content": token, **flags, "special": True} for token, i in special.items()]
    entries += [{"id": i, "content": token, **flags, "special": False} for token, i in user_defined.items()]
    return sorted(entries, key=lambda entry: entry["id"])
