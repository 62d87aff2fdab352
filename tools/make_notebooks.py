"""Write each chapter of docs/learn as a Jupyter notebook, with its listings as cells and its pictures inside.

    python tools/make_notebooks.py [FOLDER]        # build/notebooks by default

`make notebooks` runs this. It needs nbformat: pip install 'tensorlite[notebooks]'.
"""

import base64
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ROOT / "docs" / "learn"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a page in order, each as its language and its text; the language of prose is ""."""
    end = 0
    for fence in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if prose := text[end : fence.start()].strip():
            yield "", prose
        yield fence[1], fence[2]
        end = fence.end()
    if prose := text[end:].strip():
        yield "", prose


def notebook(page: Path, folder: Path) -> nbformat.NotebookNode:
    """Return the notebook of a page, with links relative to `folder`. A `text` block is the output of the cell above.

    Raises ValueError for any other block, because a notebook could not run it.
    """
    cells: list[nbformat.NotebookNode] = []
    before = ""
    for language, text in parts(page.read_text("utf-8")):
        if language == "":
            cells.append(prose_cell(text, page, folder))
        elif language == "python":
            cells.append(new_code_cell(text.removesuffix("\n")))
        elif language == "text" and before == "python":
            cells[-1].outputs = [new_output("stream", name="stdout", text=text)]
        else:
            raise ValueError(
                f"make_notebooks: expected python blocks, each with one text block below it at most, got one of "
                f"{language!r} in {page.name}. Write it as prose, or leave it out."
            )
        before = language
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # the ids that nbformat draws at random would change the file on each run
    made = new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
    nbformat.validate(made)
    return made


def prose_cell(text: str, page: Path, folder: Path) -> nbformat.NotebookNode:
    """Return a cell of prose with its pictures attached, and its links changed to lead from `folder`."""
    pictures = {}

    def attach(match: re.Match[str]) -> str:
        path = page.parent / match[2]
        pictures[path.name] = {"image/png": base64.b64encode(path.read_bytes()).decode("ascii")}
        return f"![{match[1]}](attachment:{path.name})"

    def relink(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if re.match(r"https?://|attachment:", target):
            return match[0]
        path = (page.parent / target).resolve()
        if path.parent == CHAPTERS and path.name[0].isdigit():
            return f"]({path.stem}.ipynb{anchor})"
        return f"]({Path(os.path.relpath(path, folder.resolve())).as_posix()}{anchor})"

    text = re.sub(r"!\[([^\]]*)\]\(([^)\s]+\.png)\)", attach, text)
    text = re.sub(r"\]\(([^)#\s]+)(#[^)\s]*)?\)", relink, text)
    cell = new_markdown_cell(text)
    if pictures:
        cell.attachments = pictures
    return cell


def main(folder: Path) -> None:
    """Write the notebook of each chapter into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in sorted(CHAPTERS.glob("[0-9]*.md")):
        path = folder / f"{page.stem}.ipynb"
        nbformat.write(notebook(page, folder), path)
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "notebooks")
