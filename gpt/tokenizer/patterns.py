"""Regular expressions that split a text before byte-pair encoding, by the names that GGUF files have for them.

A text is split by the first expression, its parts by the next one, and so on. What an expression matches is a part, and
so is what lies between two matches. The names are those of `tokenizer.ggml.pre`, which llama.cpp reads. The expressions
are those of the `tokenizer.json` of the models.
"""

from dataclasses import dataclass

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
# Words that change from small to capital letters are two words, in newer models.
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = [rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{CONTRACTION}|{WORD}|\p{{N}}{{1,3}}|{SIGNS}|{BLANKS}"
QWEN2 = rf"{CONTRACTION}|{WORD}|\p{{N}}|{SIGNS}|{BLANKS}"
QWEN35 = (
    rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{BLANKS}"
)
TEKKEN = rf"{CASED[0]}|{CASED[1]}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{BLANKS}"
GPT4O = "|".join(
    [*(f"{word}{CONTRACTION}?" for word in CASED), r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", BLANKS]
)
BAILING = (
    rf"'(?i:[sdmt]|ll|ve|re)|{WORD}|\p{{N}}|{SIGNS}|\s*[\r\n]|\s+(?!\S)|\s+"
)
SEED = rf"{CONTRACTION}|{WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{BLANKS}"
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{BLANKS}"
)
CJK = "[一-龥\u3040-ゟ゠-ヿ]+"


@dataclass(frozen=True)
class PreTokenizer:
    """How a text is split before its parts are encoded.

    patterns: the expressions, in the order of their use.
    ignore_merges: whether a part that is a token becomes that token, whatever the merges say.
    add_bos: whether the model wants the token that begins a text, where a file does not say.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False


DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))

# Each kind with the names that it has in files.
KINDS: tuple[tuple[PreTokenizer, str], ...] = (
    (DEFAULT, "default"),
    (
        PreTokenizer((GPT2,)),
        "gpt-2 phi-2 mpt olmo jais trillion granite-docling jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 "
        "mellum modern-bert exaone4 jina-v1-en jina-v2-code roberta-bpe",
    ),
    (PreTokenizer((r"\p{N}", GPT2)), "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2"),
    (
        PreTokenizer((LLAMA3,), ignore_merges=True, add_bos=True),
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    ),
    (PreTokenizer((LLAMA3,)), "dbrx smaug-bpe chatglm-bpe glm4"),
    (
        PreTokenizer((QWEN2,)),
        "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan grok-2 solar-open",
    ),
    (PreTokenizer((QWEN35,)), "qwen35"),
    (PreTokenizer((TEKKEN,), ignore_merges=True, add_bos=True), "tekken"),
    (PreTokenizer((GPT4O,)), "gpt-4o llama4 kanana2 talkie minimax-m2"),
    (PreTokenizer((r"\p{N}{1,3}", CJK, DEEPSEEK3)), "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    (
        PreTokenizer(("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}")),
        "deepseek-coder",
    ),
    (PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]")), "falcon"),
    (PreTokenizer((BLOOM,)), "bloom poro-chat gpt3-finnish"),
    (PreTokenizer((BLOOM, r"\p{N}")), "viking"),
    (PreTokenizer((BAILING,)), "bailingmoe bailingmoe2 llada-moe"),
    (PreTokenizer((SEED,)), "seed-coder"),
)

PRE_TOKENIZERS = {name: kind for kind, names in KINDS for name in names.split()}
