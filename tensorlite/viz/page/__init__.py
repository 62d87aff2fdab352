"""The explorer's page: one self-contained HTML file, made from the data that `tensorlite.viz` describes.

`template.html` has the skeleton, `style.css` the look, and the scripts draw the data. They are plain scripts, which
`render` puts into one function in the order of `SCRIPTS`, so each may use the functions of the others. The page asks
for nothing over the network: its Content-Security-Policy forbids it, and allows only the script and the style of this
file, by their hashes.
"""

import base64
import functools
import hashlib
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["SCRIPTS", "render"]

FOLDER = Path(__file__).parent

SCRIPTS = (
    "elements.js", "graph.js", "folding.js", "layers.js", "frames.js", "camera.js", "picture.js", "values.js",
    "sums.js", "steps.js", "backward.js", "panel.js", "search.js", "main.js",
)  # fmt: skip


def render(data: Mapping[str, Any]) -> str:
    """Return the page that shows `data`, as HTML.

    data: the graph, its values and its backward pass, in the form that `tensorlite.viz` describes.

    Raises ValueError for a NaN or an infinity among the data, which JSON cannot hold. Strings of the data appear on the
    page as text, never as HTML.
    """
    title = html.escape(str(data.get("title") or "backward pass"))
    before, after = _skeleton()
    return f"{before[0]}{title}{before[1]}{_json(data)}{after}"


def _json(data: Mapping[str, Any]) -> str:
    """Return data as JSON that can stand inside a script element."""
    text = json.dumps(_known(data), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _known(data: Any) -> Any:
    """Return data without the entries of dicts that are None: the page treats both alike, and is smaller."""
    if isinstance(data, Mapping):
        return {name: _known(value) for name, value in data.items() if value is not None}
    return [_known(each) for each in data] if isinstance(data, list) and data and isinstance(data[0], dict) else data


@functools.cache
def _skeleton() -> tuple[tuple[str, str], str]:
    """Return the parts of the page around its title and its data."""
    style = _compact(_read("style.css"))
    body = "\n".join(_compact(_read(name)) for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{body}\n}})();\n'
    policy = (
        f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    page = _read("template.html").replace("POLICY", policy).replace("STYLE", style).replace("SCRIPT", script)
    head, _, rest = page.partition("TITLE")
    middle, _, tail = rest.partition("DATA")
    return (head, middle), tail


def _compact(text: str) -> str:
    """Return a script or a style without indentation and without lines that are comments."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def _hash(text: str) -> str:
    """Return the hash of a script or a style in the form of a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")
