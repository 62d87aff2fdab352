"""Take the pictures of docs/serve.md: `python -m tests.gpt.serve_pictures docs` with SmolLM2 in the cache."""

import sys
from pathlib import Path

import gpt
from tests.support.browser import FLAGS, executable
from tests.support.server import running_server

MODEL = "smollm2-135m-instruct"
WINDOW = {"width": 1080, "height": 690}
LARGEST = 150_000  # bytes of a picture


def main(folder: str) -> None:
    """Write the pictures to a folder."""
    from playwright.sync_api import expect, sync_playwright

    model, tokenizer = gpt.load(MODEL, quantize="auto")
    with running_server({MODEL: (model, tokenizer)}) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(FLAGS))
        page = browser.new_page(viewport=WINDOW)

        def write(view: str, prompt: str, text: str, button: str, status: str, **options: str) -> None:
            page.click(f"#tab-{view}")
            for name, value in options.items():
                page.fill(f"#option-{name}", value)
            page.fill(prompt, text)
            page.click(button)
            expect(page.locator(status)).to_contain_text("Seed", timeout=180_000)

        def save(name: str) -> None:
            path = Path(folder, f"serve-{name}.png")
            page.screenshot(path=path)
            assert path.stat().st_size < LARGEST, f"{path} has {path.stat().st_size:,} bytes"
            print(path)

        page.goto(url)
        page.wait_for_selector("#option-seed")
        first = "The sky is blue because"
        write("text", "#prompt", first, "#write", "#text-status", max_tokens="60", temperature="0.8", seed="4")
        page.evaluate("scrollTo(0, 0); document.querySelector('aside').scrollTop = 0")
        page.mouse.move(1, 1)
        page.locator("#text-tokens .token[data-percent]").nth(5).hover()
        expect(page.locator("#popover .alternative")).to_have_count(10)
        save("text")
        page.mouse.move(1, 1)
        page.click("#tab-attention")
        expect(page.locator("#attention-status")).to_contain_text("The last", timeout=180_000)
        page.locator("#attention-grid [data-layer='2'][data-head='1']").click()
        page.set_viewport_size({"width": 1080, "height": 900})
        page.locator(".lines-left .line-token").nth(11).hover()
        save("attention")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
