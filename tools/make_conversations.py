"""Make a small set of conversations from the plays of Shakespeare: a line that is said, and what is answered.

    python tools/make_conversations.py plays.jsonl --number 600
    python -m gpt finetune --model smollm2-135m-instruct --data plays.jsonl --lora-rank 8

The plays are in the public domain. `gpt.data` finds them in a package (tiny Shakespeare, 1.1 MB). A play is a list of
speeches: a name with a colon on a line of its own, the words below it, and a blank line.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gpt.config import DataConfig
from gpt.data import load_text

LONGEST = 200  # characters of what is said, and of the answer


def speeches(text: str) -> Iterator[tuple[str, str]]:
    """Yield the speaker and the words, on one line, of each speech."""
    for block in text.split("\n\n"):
        name, _, words = block.strip().partition(":\n")
        if words:
            yield name, " ".join(words.split())


def conversations(text: str) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Yield a conversation for each speech that answers another one, where both are short."""
    before: tuple[str, str] | None = None
    for name, words in speeches(text):
        if before is not None and before[0] != name and max(len(before[1]), len(words)) <= LONGEST:
            question = f"You are {name.title()} in a play of Shakespeare. {before[0].title()} says: {before[1]}"
            yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": words}]}
        before = name, words


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--number", type=int, default=600, help="conversations, drawn at random with a fixed seed")
    arguments = parser.parse_args()
    found = list(conversations(load_text(DataConfig(dataset="tinyshakespeare"))))
    chosen = np.random.default_rng(0).permutation(len(found))[: arguments.number]
    lines = [json.dumps(found[i], ensure_ascii=False) + "\n" for i in chosen]
    arguments.file.write_text("".join(lines), encoding="utf-8")
    print(f"wrote {len(lines)} of {len(found)} conversations to {arguments.file}")


if __name__ == "__main__":
    main()
