"""Test the notebooks of docs/learn: their cells are the listings of the pages, with what these print."""

import pytest

from tests.project.test_docs import LESSONS, blocks, named

pytest.importorskip("nbformat")

import nbformat

from tools.make_notebooks import main, notebook, parts

PAGES = [page for page in LESSONS if page.name[0].isdigit()]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_cells_are_the_listings(page, tmp_path):
    made = notebook(page, tmp_path)
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    expected = [block.text for block in blocks(page) if block.language == "python"]
    assert [cell.source + "\n" for cell in code] == expected
    printed = [output.text for cell in code for output in cell.outputs]
    assert printed == [block.text for block in blocks(page) if block.language == "text"]
    text = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    assert "```" not in text
    assert text.startswith("# ")


def test_every_notebook_is_written_the_same_again(tmp_path):
    main(tmp_path / "one")
    main(tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [page.with_suffix(".ipynb").name for page in PAGES]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        nbformat.validate(nbformat.read(tmp_path / "one" / name, as_version=4))


def test_pictures_are_inside_and_links_lead_to_files(tmp_path):
    page = next(page for page in PAGES if page.name.startswith("1-"))
    made = notebook(page, tmp_path)
    (cell,) = [cell for cell in made.cells if "attachments" in cell]
    assert "(attachment:graph.png)" in cell.source
    assert cell.attachments["graph.png"]["image/png"].startswith("iVBORw0KGgo")
    last = made.cells[-1].source
    assert "(2-tensors-and-broadcasting.ipynb)" in last
    (link,) = [cell.source for cell in made.cells if "explore.md" in cell.source]
    target = link.split("](")[1].split(")")[0]
    assert (tmp_path / target).resolve().is_file()


def test_an_unknown_block_is_an_error(tmp_path):
    page = tmp_path / "9.md"
    page.write_text("# A\n\n```sh\nls\n```\n", "utf-8")
    assert list(parts(page.read_text("utf-8"))) == [("", "# A"), ("sh", "ls\n")]
    with pytest.raises(ValueError, match=r"got one of 'sh' in 9\.md"):
        notebook(page, tmp_path)
