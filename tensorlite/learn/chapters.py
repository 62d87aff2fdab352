"""The chapters, by number."""

from __future__ import annotations

from .chapter_1 import CHAPTER as _CHAPTER_1
from .chapter_2 import CHAPTER as _CHAPTER_2
from .chapter_3 import CHAPTER as _CHAPTER_3
from .chapter_4 import CHAPTER as _CHAPTER_4
from .chapter_5 import CHAPTER as _CHAPTER_5
from .chapter_6 import CHAPTER as _CHAPTER_6
from .chapter_7 import CHAPTER as _CHAPTER_7
from .chapter_8 import CHAPTER as _CHAPTER_8
from .exercises import Chapter

__all__ = ["CHAPTERS", "chapter_of"]

CHAPTERS = {
    chapter.number: chapter
    for chapter in (_CHAPTER_1, _CHAPTER_2, _CHAPTER_3, _CHAPTER_4, _CHAPTER_5, _CHAPTER_6, _CHAPTER_7, _CHAPTER_8)
}


def chapter_of(number: int) -> Chapter:
    """Return a chapter. Raises ValueError if there is none of this number."""
    if number not in CHAPTERS:
        raise ValueError(f"learn: expected a chapter from {min(CHAPTERS)} to {max(CHAPTERS)}, got {number}.")
    return CHAPTERS[number]
