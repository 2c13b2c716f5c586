"""A real browser whose microphone plays a file, and pages that load nothing from elsewhere."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browse(microphone):
    """Run Chromium for the length of a block; skip the test where there is none.

    Args:
        microphone: A wav file that is heard when a page asks for the microphone.
    """
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: `apt-get install chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}%noloop",
            ],
        )
        yield browser
        browser.close()


@contextmanager
def open_page(browser, url):
    """Open a page for the length of a block; it must ask nobody else for anything,
    and nothing in it may have failed."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(30_000)
    problems = []
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("http://127.0.0.1:", "blob:", "data:"))
            or problems.append(request.url)
        ),
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: "Security Policy" in message.text and problems.append(message.text),
    )
    page.goto(url)
    yield page
    context.close()
    assert problems == []
