"""Test the page of the explorer: what `render` writes, and how a real browser shows it."""

import html
import os
import re
import struct
import time
from pathlib import Path

import pytest

import tensorlite as tl
from tensorlite import nn
from tensorlite.viz import page as page_module
from tensorlite.viz.page import SCRIPTS, render

from . import page_samples as samples

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(page_module.__file__).parent
PHONE = {"viewport": {"width": 400, "height": 800}}
DESK = {"viewport": {"width": 1100, "height": 800}, "reduced_motion": "reduce"}


SHOWS_FOCUS = """e => e.closest('svg')
    ? getComputedStyle(e.querySelector('rect:not(.stack)')).strokeWidth === '3px'
    : getComputedStyle(e).outlineStyle !== 'none'"""


@pytest.fixture
def show(new_page, tmp_path):
    """Return a function that shows data in a new page of the browser."""

    def show_data(data, **options):
        path = tmp_path / f"page{len(list(tmp_path.iterdir()))}.html"
        path.write_text(render(data), "utf-8")
        return new_page(path, **{**DESK, **options})

    return show_data


def text_of(page, selector="#explain"):
    return " ".join(page.inner_text(selector).split())


def width_beyond(page):
    """Return by how many pixels the body is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def test_the_page_is_one_small_file():
    files = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert files == {"__init__.py", "template.html", "style.css", *SCRIPTS}
    assert len(render({}).encode()) < 130_000
    text = render(samples.layer())
    assert "default-src 'none'" in text
    assert not re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)', text)
    assert "innerHTML" not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_strings_of_the_data_cannot_leave_their_element():
    text = render(samples.hostile())
    assert samples.HOSTILE not in text
    assert text.count("</script>") == 2
    assert text.count("<!--") == 0
    assert "<title>&lt;/script&gt;" in text
    with pytest.raises(ValueError, match="JSON"):
        render({"values": [float("nan")]})


def test_steps(show):
    page = show(samples.layer())
    assert "4 rows" in text_of(page)  # the start names the sums that are worth a look
    assert page.is_disabled("#previous")
    page.click("#next")
    assert page.inner_text("#where") == "The inputs and parameters"
    lead = "1 input that is data, 1 tensor that gets a gradient and 2 parameters, which training changes."
    assert lead in text_of(page)
    assert page.locator(".box.near").count() == 4
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#where") == "Forwards 1 of 4: linear"
    assert page.get_attribute(".box.now", "aria-label").startswith("linear, 4 × 2")
    assert page.locator(".link.flows").count() == 3
    assert "linear takes x, 0.weight and 0.bias" in text_of(page)
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#live") == "The inputs and parameters"
    page.keyboard.press("End")
    assert "Each gradient has the shape of its tensor" in text_of(page)
    assert page.is_disabled("#next")
    page.keyboard.press("Home")
    assert page.inner_text("#where") == "Start"
    page.fill("#slider", "6")
    assert page.inner_text("#where") == "Backwards 1 of 4: sum"
    assert "its gradient is 1" in text_of(page)
    assert page.locator(".backwards .box.now").count() == 1


def test_a_learner_finds_out_why_the_bias_gets_a_sum(show):
    page = show(samples.layer())
    page.click("text=The gradient of 0.bias is a sum of 4 rows.")
    assert page.inner_text("#where") == "Backwards 4 of 4: linear"
    assert "xp.linear_backward(g, x, weight, needs)" in text_of(page)
    called = page.locator("details.called")
    assert called.locator("summary").inner_text() == "It calls linear_backward"
    assert called.locator("pre").inner_text() == "def linear_backward(xp, g):\n    return xp.sum(g)"
    sentence = "The bias was used for each of the 4 rows, so its gradient is the sum of 4 rows."
    box = page.locator("section.sum")
    assert sentence in " ".join(box.inner_text().split())
    assert "There is one bias for all of them, so the effects add up." in text_of(page)
    rows = [[float(cell.replace("−", "-")) for cell in row.locator(".entry").all_inner_texts()]
            for row in box.locator("tr.term").all()]  # fmt: skip
    total = [float(cell.replace("−", "-")) for cell in box.locator("tr.total .entry").all_inner_texts()]
    assert len(rows) == 4
    assert total == pytest.approx([sum(column) for column in zip(*rows, strict=True)], abs=0.02)
    edge = page.locator(".term .entry").first.bounding_box(), page.locator("tr.total .entry").first.bounding_box()
    assert edge[0]["x"] == pytest.approx(edge[1]["x"], abs=1)  # the sum stands under its columns
    page.clock.install()  # the animation goes on only where the test says so
    page.click("text=Add the rows one by one")
    page.clock.run_for(100)
    assert "1 row added." in text_of(page)
    assert page.locator("tr.total .entry").first.inner_text() == box.locator("tr.term .entry").first.inner_text()
    page.clock.run_for(5000)
    assert [float(cell.replace("−", "-")) for cell in box.locator("tr.total .entry").all_inner_texts()] == total
    page.keyboard.press("ArrowLeft")
    column = "The value shift was used for each of the 2 columns, so its gradient is the sum of 2 columns."
    assert column in text_of(page)
    assert page.locator("section.sum .entry.total").count() == 4


def test_sums_of_heat_maps(show):
    page = show(samples.large_sums(), reduced_motion="no-preference")
    page.fill("#slider", "4")
    sums = page.locator("section.sum")
    assert "The value row was used for each of the 12 rows" in sums.nth(0).inner_text()
    assert "The value column was used for each of the 9 columns" in sums.nth(1).inner_text()
    boxes = [[sums.nth(i).locator(part).bounding_box() for part in ("canvas", ".strip")] for i in (0, 1)]
    (rows, row), (columns, column) = boxes
    assert (rows["x"], rows["width"]) == pytest.approx((row["x"], row["width"]), abs=1)  # under its columns
    assert row["y"] >= rows["y"] + rows["height"]
    assert (columns["y"], columns["height"]) == pytest.approx((column["y"], column["height"]), abs=1)  # by its rows
    assert column["x"] >= columns["x"] + columns["width"]
    page.click("text=Collapse the rows")
    assert page.evaluate("document.getAnimations().length") >= 1
    page.fill("#slider", "2")
    assert "h.0 · Block has 1,234 nodes. This overview shows it as one box." in text_of(page)


def test_several_uses_memory_and_checks(show):
    page = show(samples.layer())
    page.fill("#slider", "7")
    text = text_of(page)
    assert "y is used 2 times; this is use 1: nothing had arrived before. " in text
    assert "y is used 2 times; this is use 2." in text
    terms = page.locator(".equation figure").all_inner_texts()
    assert [term.split()[0] for term in terms] == ["arrived", "this", "total"]
    assert "nothing needs x of mul and y of mul any more: 64 bytes are freed." in text
    assert page.get_attribute(".memory", "aria-label") == "96 bytes of 160 bytes of saved values are still held."
    page.keyboard.press("ArrowRight")
    assert "✗ Finite differences disagree. Largest relative error: 0.5." in text_of(page)
    page.keyboard.press("ArrowRight")
    text = text_of(page)
    assert "✓ Finite differences agree. Largest relative error: 1e−9." in text
    assert "At [1] the function has a kink. Every slope from −1 to 2 is right there." in text
    assert page.locator(".link.wrong").count() == 1
    assert page.locator(".link.wrong .count").text_content() == "✗ differs"


def test_folding_and_search(show):
    page = show(samples.layer())
    assert page.locator(".box").count() == 8
    page.locator(".fold", has_text="0 · Linear").click()
    assert page.locator(".box").count() == 6
    module = page.locator(".box.module")
    assert module.get_attribute("aria-label") == "Open module 0 · Linear: 1 op, 2 parameters"
    page.fill("#slider", "9")
    assert "This op is inside the folded module 0 · Linear." in text_of(page)
    assert page.inner_text("#live").endswith("inside the folded module 0 · Linear")
    assert "now" in module.get_attribute("class")
    module.click()
    assert page.locator(".box").count() == 8
    page.click("#fold-all")
    assert page.locator(".box").count() == 6  # x, shift, the modules, and the ops outside of them
    page.fill("#search", "BIAS")
    assert page.locator("#found [role=option]").all_inner_texts() == ["0.bias parameter"]
    page.keyboard.press("Enter")
    assert page.inner_text("#heading") == "0.bias"
    assert page.locator(".box.selected").get_attribute("aria-label").startswith("parameter 0.bias")
    assert "train.py:3: y = f(x)" in text_of(page)
    page.fill("#search", "nowhere")
    assert page.inner_text("#found") == "Nothing has this name."
    page.click("#open-all")
    page.locator(".link .reach").first.dispatch_event("click")
    assert "is argument" in text_of(page)


def test_pan_and_zoom(show):
    page = show(samples.layer())

    def place():
        return [round(page.locator(".box").first.bounding_box()[side]) for side in ("x", "y", "width")]

    start = place()
    page.mouse.move(200, 300)
    page.mouse.wheel(0, -120)
    page.wait_for_function("w => document.querySelector('.box').getBoundingClientRect().width > w + 1", arg=start[2])
    wheel = place()
    assert wheel[2] > start[2]
    page.mouse.down()
    page.mouse.move(260, 340, steps=3)
    page.mouse.up()
    assert place() == pytest.approx([wheel[0] + 60, wheel[1] + 40, wheel[2]], abs=1)
    assert page.inner_text("#heading") == "Start"  # a drag selects nothing
    page.keyboard.press("-")
    assert place()[2] < wheel[2]
    page.keyboard.press("0")
    assert place() == start
    page.keyboard.press("Shift+ArrowDown")
    assert place() == pytest.approx([start[0], start[1] - 60, start[2]], abs=1)
    page.evaluate("""() => {  // two fingers that move apart
        const send = (type, pointerId, clientX) => document.getElementById('picture').dispatchEvent(
            new PointerEvent(type, {pointerId, clientX, clientY: 300, bubbles: true}));
        send('pointerdown', 1, 200); send('pointerdown', 2, 300); send('pointermove', 2, 400);
        send('pointerup', 2, 400);
        send('pointerup', 1, 200);
    }""")
    assert place()[2] == pytest.approx(2 * start[2], rel=0.02)
    page.click("#fit")
    page.locator(".box").first.hover()
    assert page.inner_text("#tip").startswith("constant x, 4 × 3, float64. train.py:3:")


def test_values(show):
    page = show(samples.values())
    assert "freed them" in page.inner_text(".note")
    page.keyboard.press("ArrowRight")
    sections = [" ".join(each.split()) for each in page.locator("#explain > section").all_inner_texts()]
    names = ("empty", "single", "flags", "cube", "odd", "large", "freed")
    found = dict(zip(names, sections, strict=True))
    assert all(text.startswith(f"{name} leaf") for name, text in found.items())
    assert "This tensor is empty: it has no entries." in found["empty"]
    assert "0.125" in found["single"]
    assert "True False" in found["flags"]
    assert "[0, :, :]" in found["cube"]
    assert "[1, :, :]" in found["cube"]
    assert "NaN 33% infinite 33%" in found["odd"]
    assert "NaN under 1% infinite under 1%" in found["large"]
    assert "A backward pass has freed it." in found["freed"]
    canvas = page.locator("#explain canvas")
    canvas.scroll_into_view_if_needed()
    colours = canvas.evaluate("c => [...c.getContext('2d').getImageData(4, 3, 1, 1).data]")
    assert colours == [214, 40, 160, 255]  # NaN has a colour of its own
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] * 3.5 / 12)
    assert page.inner_text("#tip") == "[3, 4] is NaN or infinite"
    page.locator("section", has_text="cube").locator(".entry").nth(5).hover()
    assert page.inner_text("#tip") == "[1, 0, 1] = 5"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_windows_and_themes(show, scheme):
    page = show(samples.layer(), color_scheme=scheme, **PHONE)
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    assert (sum(map(int, re.findall(r"\d+", before))) > 384) == (scheme == "light")
    graph, panel = page.locator("#graph").bounding_box(), page.locator("#panel").bounding_box()
    assert panel["y"] >= graph["y"] + graph["height"]
    beyond = []
    for _ in range(14):
        beyond.append(width_beyond(page))
        page.click("#next", force=True, no_wait_after=True) if page.is_enabled("#next") else None
    assert max(beyond) <= 0
    page.click("#theme")
    assert page.evaluate(ground) != before


def test_the_keyboard_is_enough(show):
    page = show(samples.layer())
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        where = "e => e.id || e.dataset.key || e.textContent"
        focused = page.evaluate_handle("document.activeElement")
        reached.append(focused.evaluate(where))
        assert focused.evaluate(SHOWS_FOCUS), f"{reached[-1]} shows no focus"
        if reached[-1] == "explain":
            break
    wanted = ["search", "open-all", "fit", "theme", "help", "slider", "next", "tab-step", "explain"]
    assert [name for name in reached if name in wanted] == wanted
    box = page.locator(".box[tabindex='0'], .fold[tabindex='0']")
    assert box.count() == 1
    box.focus()
    for _ in range(9):
        page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("sum")
    page.keyboard.press("Enter")
    assert page.inner_text("#heading") == "sum"
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("linear")
    page.locator(".fold", has_text="0 · Linear").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "false"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    page.keyboard.press("?")
    assert page.is_visible("dialog")
    page.keyboard.press("Escape")
    assert not page.is_visible("dialog")
    unnamed = "e => !(e.getAttribute('aria-label') || e.textContent.trim())"
    assert not any(each.evaluate(unnamed) for each in page.locator("button, [role=button], [role=tab]").all())


def test_hostile_names_are_text(show, new_page):
    page = show(samples.hostile())
    assert page.inner_text("h1") == samples.HOSTILE
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.locator(".box").last.click()
    page.fill("#search", "img")
    page.keyboard.press("Enter")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert len(new_page.requests) == 1


def test_two_thousand_nodes(show):
    start = time.perf_counter()
    page = show(samples.large())
    shown = time.perf_counter()
    assert 1 < page.locator(".box").count() <= 60
    page.click("#open-all")
    assert page.locator(".box").count() == 2000
    opened = time.perf_counter()
    page.evaluate("() => { for (let i = 0; i < 50; i += 1) document.getElementById('next').click(); }")
    stepped = time.perf_counter()
    assert page.inner_text("#where") == "Forwards 49 of 1999: h.1.1 · tanh 9"
    now = page.locator(".box.now").bounding_box()
    graph = page.locator("#graph").bounding_box()
    assert graph["y"] <= now["y"] <= graph["y"] + graph["height"]  # the step is in view
    print(f"2,000 nodes: shown in {shown - start:.2f} s, opened in {opened - shown:.2f} s, "
          f"{(stepped - opened) / 50 * 1000:.0f} ms a step")  # fmt: skip
    overlap = page.evaluate("""() => {
        const boxes = [...document.querySelectorAll('.box')].slice(0, 300).map((e) => e.getBoundingClientRect());
        return boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right && b.left < a.right
            && a.top < b.bottom && b.top < a.bottom));
    }""")
    assert not overlap


@pytest.mark.parametrize("data", [{}, samples.recurrent()], ids=["empty", "recurrent"])
def test_unusual_graphs(show, data):
    page = show(data)
    boxes = page.locator(".box").count()
    assert boxes == (8 if data.get("nodes") else 0)
    assert page.is_visible("#empty") == (boxes == 0)
    if boxes:
        page.click("#fold-all")
        assert page.locator(".box").count() == 6
        assert page.locator(".link").count() == 7  # links into the module and out of it, in a cycle
        page.locator(".box.second").click()
        assert "The gradient rule of exp 3 computed this value" in text_of(page)
        assert page.locator("path.origin").count() == 1
    page.keyboard.press("End")
    page.keyboard.press("0")


def test_a_notebook_shows_the_page_in_a_sandbox(new_page, tmp_path):
    """A notebook puts the page into the srcdoc of an iframe, where it has no storage and no origin."""
    outer = tmp_path / "notebook.html"
    page = html.escape(render(samples.layer()), quote=True)
    frame = f'<iframe sandbox="allow-scripts" width=900 height=640 srcdoc="{page}"></iframe>'
    outer.write_text(f"<!doctype html>{frame}", "utf-8")
    frame = new_page(outer).frames[1]
    frame.click("#theme")
    frame.click("#next")
    assert frame.inner_text("#where") == "The inputs and parameters"
    assert frame.evaluate("document.documentElement.dataset.theme") == "dark"


class Block(nn.Module):
    """The attention half of a transformer's block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: tl.Tensor) -> tl.Tensor:
        normed = self.norm(x)
        y, _ = self.attention(normed, normed, normed, need_weights=False)
        return x + y


def mlp_data():
    """Return the explored loss of a perceptron with biases, on a batch of 4 rows."""
    tl.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    loss = (model(tl.randn(4, 3)) ** 2).mean()
    return tl.explore(loss, model=model).data


def block_data():
    """Return the explored sum of an attention block's results."""
    tl.manual_seed(0)
    block, x = Block(), tl.randn(2, 8, 32, requires_grad=True)
    loss = (block(x) ** 2).sum()
    return tl.explore(loss, model=block).data


PICTURES = {  # name: data, options of the window, the op of the step, what the explanation says
    "explore": (mlp_data, {"viewport": {"width": 1200, "height": 780}}, "linear",
                "The bias was used for each of the 4 rows, so its gradient is the sum of 4 rows."),
    "explore-attention": (block_data, {"viewport": {"width": 1200, "height": 780}, "color_scheme": "dark"}, "attention",
                          "turns it into gradients for q, k and v"),
    "explore-phone": (mlp_data, PHONE, "linear", "The bias was used for each of the 4 rows"),
}  # fmt: skip


def test_a_learner_finds_out_what_a_step_computes(show):
    """Go through what confused a learner on the page of a perceptron: names, formulas, entries, memory, tabs, marks."""
    page = show(mlp_data())
    assert [n["not_kept"] for n in tl.explore(tl.ones(2, requires_grad=True).sum() - 3).data["nodes"]][-1] == [
        {"name": "y", "shape": None, "value": None, "text": None}]
    assert "A gradient says how loss changes when an entry grows by a little. Training needs it" in text_of(page)
    dot = page.locator("#marks button").first
    dot.hover()
    assert page.inner_text("#tip") == "The gradient of 2.bias is a sum of 4 rows."
    dot.click()
    assert page.inner_text("#where") == "Backwards 3 of 5: 2 · linear"
    text = text_of(page)
    assert "The rule of 2 · linear turns it into gradients for relu, 2.weight and 2.bias." in text
    for formula in ("x = g @ weight", "weight = g.T @ x", "bias = g.sum(0)"):
        assert f"In short: gradient of {formula}" in text
    assert "2.weight was used for each of the 4 rows, so each entry of its gradient is a sum of 4 rows." in text
    weight = page.locator("section.input").nth(1)
    weight.locator("tbody .entry").nth(0).focus()
    page.keyboard.press("ArrowRight")
    tip = page.inner_text("#tip").replace("−", "-")
    said = re.fullmatch(r"entry \[0, 1\] = sum over 4 rows of g\[row, 0\] \* x\[row, 1\] = (.*) = (.*)", tip)
    assert eval(said[1]) == pytest.approx(float(said[2]), rel=0.02)  # noqa: S307
    assert said[2] == weight.locator("tbody .entry").nth(1).inner_text().replace("−", "-")
    assert "The result of relu (x of linear) stays, because relu still needs the same array." in text
    assert "Not counted: 2.weight and 2.bias." in text
    assert "bias 2 numbers, 8 bytes, kept, but not used by this rule" in text
    page.click("#tab-box")
    page.locator(".box", has_text="2.weight").click()
    assert page.locator("section", has_text="min").count() == 2  # the value and the gradient
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#where") == "Backwards 2 of 5: pow"
    assert "gradient of x = g * (2 * x)" in text_of(page)
    page.click("#tab-box")
    assert "The backward pass has not reached it yet." in text_of(page)
    page.click("text=Where its gradient comes from")
    assert page.inner_text("#where") == "Backwards 3 of 5: 2 · linear"
    page.click("#tab-step")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#where") == "Backwards 4 of 5: relu"
    page.click("#help")
    assert "memory that this step frees" in text_of(page, "#legend")


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_of_the_documentation_show_what_the_page_shows(show, name):
    """Open the page that each picture in `docs` shows. With TENSORLITE_SCREENSHOTS=docs, take the pictures again."""
    make, options, op, says = PICTURES[name]
    data = make()
    page = show(data, **options)
    step = next(i for i, each in enumerate(data["backward"]) if data["nodes"][each["node"]]["op"] == op)
    first = int(page.get_attribute("#slider", "max")) - len(data["backward"])
    page.fill("#slider", str(first + step))
    assert page.inner_text("#where").endswith(op)
    assert says in text_of(page)
    assert f"{op}, " in page.locator(".box.now").get_attribute("aria-label")
    assert page.locator(".backwards .link.flows").count() == len(data["backward"][step]["inputs"])
    assert page.locator(".frame").count() == len(data["modules"])
    if name == "explore":
        page.click(".callout.sum")
    path = Path(os.environ.get("TENSORLITE_SCREENSHOTS", ROOT / "docs"), f"{name}.png")
    if "TENSORLITE_SCREENSHOTS" in os.environ:
        page.mouse.move(2, 2)
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=path)
    picture = path.read_bytes()
    assert len(picture) < 150_000
    width, height = struct.unpack(">II", picture[16:24])
    assert {"width": width, "height": height} == options["viewport"]
