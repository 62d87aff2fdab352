"""Seeded random texts for tokenizers: words, digits, blanks, controls, other scripts, and special tokens as text."""

import random

PARTS = (
    "the", " the", "The", " quick", "brown", "don't", "'S", "I'm", "x", " ", "  ", "    ", "\n", "\n\n", "\r\n", "\t",
    "\u00a0", "\u3000", "\u2028", "\x85", "\x00", "\x0b", "\x1c", "\x7f", "1", "12", "123", "4567", " 89", "3.14", "٣",
    "½", "²", "é", "e\u0301", "ß", "ſ", "naïf", "日本", "世界。", "한국", "ไทย", "हिन्दी", "🙂",
    "👩\u200d👩",
    "\u200d", "\ufeff", "\ufffd", "▁", "▁x", "Ġ", "<0x0A>", "<|end|>", "<s>", "</s>", "<|im_start|>", "<unk>",
    "!", "...", "?!", "_", "-",
    " -", "==", "{\"a\":", "[1,2]}", "/", "\\", "$", "`", "#!", "camelCase", "HTTPServer", "ǅ", "\U0010ffff", "aaaa",
)  # fmt: skip


def random_texts(seed, count, length=10):
    """Return `count` texts of at most `length` parts each."""
    rng = random.Random(seed)
    return ["".join(rng.choices(PARTS, k=rng.randint(0, length))) for _ in range(count)]
