"""Test the page of the server in a real browser, by what a user sees and does."""

import json
import re
from pathlib import Path

import pytest

from gpt.config import SamplingConfig
from gpt.generation import generate_with_logprobs
from gpt.generation.chat import encode_chat
from gpt.inspect import attention_weights, logit_lens
from gpt.runs import METRICS
from tests.gpt.page_models import HOSTILE, page_models

pytest.importorskip("fastapi", reason="the server needs FastAPI: pip install 'tensorlite[serve]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'tensorlite[test]'")
pytest.importorskip("httpx")

import httpx
from playwright.sync_api import expect

from gpt.serve import page_runs
from tests.support.server import running_server

MODELS = page_models()
MODEL, TOKENIZER = MODELS["talker"]
DESK = {"viewport": {"width": 1180, "height": 860}}
PHONE = {"viewport": {"width": 400, "height": 800}, "color_scheme": "dark", "reduced_motion": "reduce"}
PAGE = Path(page_runs.__file__).with_name("page")
SEED = 11

expect.set_options(timeout=20_000)  # milliseconds; other tests may have the cores


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with two runs."""
    folder = tmp_path_factory.mktemp("runs")
    for name, loss in (("first", 3.0), ("<b>second", 2.0)):
        path = folder / name
        path.mkdir()
        lines = [{"step": step, "loss": loss + 10 / step, "lr": 1.0} for step in range(10, 60, 10)]
        lines += [{"step": 50, "train_loss": loss, "val_loss": loss + 0.25}]
        path.joinpath(METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module", autouse=True)
def server(runs):
    with running_server(MODELS) as (url, app):
        app.state.runs = runs
        # The first text may wait for kernels that are compiled, which takes longer than a browser is given here.
        httpx.post(f"{url}/api/generate", json={"prompt": "the", "max_tokens": 2}, timeout=300)
        yield url


def written(prompt, count, seed=SEED, tokenizer=TOKENIZER):
    """Return the tokens that the page should show after a prompt."""
    options = {"alternatives": 10, "stop_tokens": tokenizer.stop_ids}
    return list(generate_with_logprobs(MODEL, prompt, count, SamplingConfig(seed=seed), **options))


def shown(page, box="#text-tokens"):
    """Return the text of the tokens, without the marks that stand for what cannot be seen."""
    return page.locator(f"{box} .line").evaluate_all("lines => lines.map((line) => line.textContent).join('')")


def text_of(prompt, tokens):
    """Return the text of a prompt and of the tokens after it. Special tokens are shown by their names."""
    names = {number: name for name, number in TOKENIZER.special_tokens.items()}
    ids = [*prompt, *[item.token for item in tokens]]
    parts = [names[i].encode() if i in names else TOKENIZER.decode_bytes([i]) for i in ids]
    return b"".join(parts).decode(errors="replace")


def is_done(page, status="#text-status"):
    expect(page.locator(status)).to_contain_text("Seed")


def wide_by(page):
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def test_the_page_needs_nothing_else():
    names = {path.name for path in PAGE.iterdir()}
    html = (PAGE / "index.html").read_text("utf-8")
    assert set(re.findall(r'(?:src|href)="/page/([^"]+)"', html)) <= names
    assert not re.search(r'(?:src|href)="(?!/page/|#)|<style|style=|<script(?! type="module" src)| on\w+=', html)
    for path in PAGE.glob("*.js"):
        source = path.read_text("utf-8")
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|https?://(?!www\.w3\.org)", source)
        assert set(re.findall(r'from "\./([^"]+)"', source)) <= names
        assert len(source.splitlines()) < 400


def test_write_and_continue_from_another_token(new_page, server):
    page = new_page(f"{server}/#text", **DESK)
    names = page.locator("#controls input[name]").evaluate_all("all => all.map((one) => one.name)")
    assert names == ["max_tokens", *(field.name for _, field, _ in SamplingConfig().options())]
    assert "divisor of the logits" in page.inner_text("#option-temperature-help").lower()
    # Options: a wrong value is refused in words, and all of them can be reset.
    page.fill("#option-top_p", "2")
    page.click("#write")
    assert page.locator("#option-top_p").evaluate("input => input.validity.rangeOverflow")
    page.click("#reset")
    assert page.input_value("#option-top_p") == "1"
    page.fill("#option-seed", str(SEED))
    page.fill("#option-max_tokens", "40")
    # Text that looks like HTML, that is written from right to left, and whose characters have several tokens.
    prompt = f"{HOSTILE}\n\nשלום é the"
    page.fill("#prompt", prompt)
    ids = TOKENIZER.encode(prompt).tolist()
    expect(page.locator("#prompt-count")).to_have_text(f"{len(ids)} tokens")
    page.keyboard.press("Control+Enter")
    is_done(page)
    tokens = written(ids, 40)
    assert shown(page) == text_of(ids, tokens)
    assert page.locator("#text-tokens img").count() == 0
    lines = page.locator("#text-tokens .line")
    assert lines.nth(2).evaluate("line => getComputedStyle(line).direction") == "rtl"
    # Parts of a character, and characters without width, can be pointed at.
    assert page.locator("#text-tokens .token").evaluate_all("all => all.every((one) => one.offsetWidth > 0)")
    # The colour and the percent of each token say its probability.
    spans = page.locator("#text-tokens .token[data-percent]")
    assert spans.count() == len(tokens)
    steps = [sum(item.logprob < bound for bound in (-0.10536, -0.69315, -1.60944, -2.99573)) for item in tokens]
    classes = spans.evaluate_all("all => all.map((one) => one.className.match(/p(\\d)/)[1])")
    assert [int(step) for step in classes] == steps
    colors = {page.locator(f"#scale .p{k}").evaluate("e => getComputedStyle(e).backgroundColor") for k in range(5)}
    assert len(colors) == 5
    # The list of the likeliest tokens opens under a pointer that moves, and not for a text that comes under it.
    box = spans.nth(7).bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 5)
    page.keyboard.press("Control+Enter")
    is_done(page)
    page.wait_for_timeout(250)
    assert page.locator("#popover").is_hidden()
    spans.nth(7).hover()
    page.wait_for_selector("#popover", state="visible")
    rows = page.locator("#popover .alternative")
    expect(rows).to_have_count(10)
    assert f"token {len(ids) + 8}, id {tokens[7].token}" in page.inner_text("#popover")
    shares = [row.split("\n")[-1] for row in rows.all_inner_texts()]
    assert all(re.fullmatch(r"(<0\.1|\d\.\d|\d\d+) %", share) for share in shares)
    assert not page.locator("#popover .bar").evaluate_all("bars => bars.some((bar) => !bar.style.width)")
    # A choice cuts the text there, and the text goes on from it. The text before it is still there.
    place = next(k for k, item in enumerate(tokens) if k > 7 and item.alternatives[1][0] not in TOKENIZER.stop_ids)
    page.mouse.move(1, 1)
    spans.nth(place).click()
    other = tokens[place].alternatives[1][0]
    rows.nth(1).click()
    page.wait_for_selector("text=Version 3 of 3")
    is_done(page)
    begin = [*ids, *[item.token for item in tokens[:place]], other]
    assert shown(page) == text_of(begin, written(begin, 40))
    assert page.locator(".picked").get_attribute("data-place") == str(len(ids) + place)
    page.click("text=‹ Back")
    assert shown(page) == text_of(ids, tokens)
    # The same by keyboard alone: to a token, into its list, and on from the third one.
    spans.nth(3).focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#text-tokens .token:focus")).to_have_attribute("aria-label", re.compile(r"% ?, token \d+ of"))
    assert page.locator("#text-tokens .token:focus").evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert page.locator("#text-tokens .token[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    focused = page.evaluate("document.activeElement.ariaLabel")
    page.keyboard.press("Escape")
    assert page.locator("#popover").is_hidden()
    page.keyboard.press("ArrowDown")
    for _ in range(2):
        page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.ariaLabel") == focused
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Version 4 of 4")
    third = tokens[4].alternatives[2][0]
    begin = [*ids, *[item.token for item in tokens[:4]]]
    if third not in TOKENIZER.stop_ids:
        is_done(page)
        assert shown(page).startswith(text_of([*begin, third], []).rstrip("\ufffd"))
    # What a screen reader says comes at the end of a text, and not with each token.
    assert page.inner_text("#live").startswith("Done.")


def test_stop_errors_and_a_server_that_is_gone(new_page):
    with running_server(MODELS, token="open sesame") as (url, _):
        page = new_page(f"{url}/#text", **DESK)
        page.fill("#token-field", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#token-why")).to_contain_text("did not accept")
        page.fill("#token-field", "open sesame")
        page.keyboard.press("Enter")
        page.select_option("#model", "endless")
        assert page.locator("#tab-chat").is_hidden()
        assert all("401" in error for error in new_page.errors)
        new_page.errors.clear()
        # A text that would take long stops at once, by the key and by the button.
        page.fill("#option-max_tokens", "4000")
        page.fill("#option-seed", "1")
        for stop in (lambda: page.keyboard.press("Escape"), lambda: page.click("#stop")):
            page.fill("#prompt", "the")
            page.keyboard.press("Control+Enter")
            page.wait_for_selector("#text-tokens [data-place='40']", state="attached")
            stop()
            expect(page.locator("#text-status")).to_contain_text("stopped")
            expect(page.locator("#write")).to_be_enabled()
        # An error of the server is shown in its words.
        page.fill("#prompt", "THE")
        page.click("#write")
        expect(page.locator("#text-error")).to_have_text("no token begins with 'T'.")
        new_page.errors.clear()  # Browsers write each status from 400 on to the console.
        page.fill("#prompt", "the")
        page.wait_for_timeout(350)  # The page counts the tokens of a prompt 300 ms after the last key.
    page.click("#write")
    expect(page.locator("#banner")).to_contain_text("The server does not answer")
    expect(page.locator("#text-error")).to_contain_text("python -m gpt serve")
    assert all("ERR_CONNECTION_REFUSED" in error or "400" in error for error in new_page.errors)
    page.close()
    new_page.errors.clear()


def test_attention_and_lens(new_page, server):
    page = new_page(f"{server}/#text", **DESK)
    page.fill("#prompt", "the cat é sat on\nthe mat.")
    ids = TOKENIZER.encode("the cat é sat on\nthe mat.").tolist()
    page.click("#tab-attention")
    expect(page.locator("#attention-grid .map")).to_have_count(4)
    weights = attention_weights(MODEL, ids)
    page.locator("#attention-grid .map").nth(2).click()
    assert page.inner_text("#attention-title") == "Layer 1, head 0"
    # The map under the pointer, and under the arrow keys.
    canvas = page.locator(".large-map")
    size = canvas.bounding_box()["width"] / len(ids)
    canvas.hover(position={"x": size * 2.5, "y": size * 5.5})
    percent = re.compile(r": ([\d.]+) %")
    read = page.inner_text("#attention-readout")
    assert float(percent.search(read)[1]) == pytest.approx(100 * weights[1, 0, 5, 2], abs=1)
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    read = page.inner_text("#attention-readout")
    assert float(percent.search(read)[1]) == pytest.approx(100 * weights[1, 0, 4, 1], abs=1)
    # The lines of a token: as many as it attends to, the widest to the token with the largest weight.
    page.locator(".lines-left .line-token").nth(6).hover()
    lines = page.locator(".attention-line")
    assert lines.count() == (weights[1, 0, 6] >= 0.02).sum()
    widths = lines.evaluate_all("all => all.map((one) => Number(one.getAttribute('stroke-width')))")
    assert max(widths) == pytest.approx(0.5 + 5.5 * weights[1, 0, 6].max(), abs=0.1)
    # Keys move between the maps.
    page.locator("#attention-grid .map[aria-current]").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#attention-title") == "Layer 0, head 1"
    page.click("#tab-lens")
    table = page.locator("table.lens")
    expect(table.locator("tbody tr")).to_have_count(3)
    lens = logit_lens(MODEL, ids, 10)
    cell = table.locator("tbody tr").first.locator("td").last
    assert cell.inner_text().endswith("%")
    share = 100 * lens.probabilities[-1, -1, 0]
    assert float(cell.locator("small").inner_text().removesuffix(" %").lstrip("<")) == pytest.approx(share, abs=0.6)
    cell.hover()
    expect(page.locator("#popover .alternative")).to_have_count(10)
    assert page.locator("#popover button").count() == 0
    cell.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert "layer 0, after token" in page.inner_text("#popover")


def test_a_conversation_on_a_phone(new_page, server):
    page = new_page(f"{server}/", **PHONE)
    expect(page.locator("#tab-chat")).to_have_attribute("aria-selected", "true")
    page.click("#settings summary")
    page.fill("#option-seed", str(SEED))
    page.fill("#option-max_tokens", "16")
    page.click("#settings summary")
    page.fill("#message", "the cat")
    page.click("#send")
    is_done(page, "#chat-status")
    messages = [{"role": "user", "content": "the cat"}]
    prompt = encode_chat(TOKENIZER, messages).tolist()
    answer = text_of([], written(prompt, 16))
    assert shown(page, ".message.assistant") == answer
    # The next question has the conversation before it, and the system message.
    page.click(".system summary")
    page.fill("#system", "be kind.")
    page.fill("#message", "sat on")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".message")).to_have_count(4)
    is_done(page, "#chat-status")
    system, more = {"role": "system", "content": "be kind."}, {"role": "user", "content": "sat on"}
    said = {"role": "assistant", "content": TOKENIZER.decode([item.token for item in written(prompt, 16)])}
    prompt = encode_chat(TOKENIZER, [system, *messages, said, more]).tolist()
    assert shown(page, ".message:nth-child(4)") == text_of([], written(prompt, 16))
    # An edited question has another answer, the conversation before it can be reached, and a new one begins empty.
    page.locator("text=Edit").first.click()
    page.fill(".edit textarea", "mat")
    page.click("text=Send again")
    expect(page.locator(".message")).to_have_count(2)
    is_done(page, "#chat-status")
    assert page.inner_text(".message.user .message-text") == "mat"
    page.click("text=Retry")
    page.wait_for_selector("text=Version 4 of 4")
    is_done(page, "#chat-status")
    back = page.locator("#chat-versions button").first
    back.click()
    back.click()
    expect(page.locator(".message")).to_have_count(4)
    page.click("text=New conversation")
    expect(page.locator(".message")).to_have_count(0)
    back.click()
    # No view is wider than the window, in which everything is dark.
    for name in ("attention", "lens", "runs", "text", "chat"):
        page.click(f"#tab-{name}")
        page.wait_for_timeout(50)
        assert wide_by(page) <= 0, name
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.click("#theme")
    assert page.inner_text("#theme") == "Theme: light"
    assert page.evaluate(paper) != dark
    page.reload()
    expect(page.locator("#theme")).to_have_text("Theme: light")
    expect(page.locator("#tab-chat")).to_have_attribute("aria-selected", "true")  # The page chooses it a bit later.
    # Tab reaches the parts of the page in the order in which they are seen, and shows where it is.
    page.locator("#theme").focus()
    seen = []
    for _ in range(6):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert seen == ["tab-chat", "SUMMARY", "chat-new", "message", "send", "show-percent"]
    page.keyboard.press("Space")
    assert page.evaluate("document.body.classList.contains('with-percent')")


def test_runs(new_page, server, runs, monkeypatch):
    monkeypatch.setattr(page_runs, "FRESH_SECONDS", 0.0)
    page = new_page(f"{server}/#runs", **DESK)
    rows = page.locator("#runs-table tbody tr")
    expect(rows).to_have_count(2)
    assert {"first", "<b>second"} == set(page.locator("#runs-table tbody th").all_inner_texts())
    for box in page.locator("#runs-table input").all():
        box.check()
    expect(page.locator(".legend li")).to_have_count(4)
    assert page.locator(".curve").count() == 8  # each curve, and its line in the legend
    row = page.locator("#runs-table tr", has_text="first")
    assert "3.2500" in row.inner_text()
    assert row.get_by_text("Sample").is_disabled()
    with runs.joinpath("first", METRICS).open("a") as file:
        file.write('{"step": 60, "loss": 2.5}\n{"step": 60, "train_loss": 2.4, "val_loss": 2.4375}\n')
    page.click("#tab-text")  # A view that is shown again looks at once.
    page.click("#tab-runs")
    expect(row).to_contain_text("2.4375")
    assert any(request.endswith("/api/runs") for request in new_page.requests)
