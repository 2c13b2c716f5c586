"""The page in a real browser: Debian's (`apt-get install chromium`), driven by playwright.

Skipped, with the reason, where there is no Chromium; continuous integration installs it.
"""

import re
import xml.etree.ElementTree as ElementTree

import httpx
import numpy as np
import pytest

from speechjepa.serving.page import build_page
from tests.serving.browser import browse, open_page
from tests.serving.server import LiveToneModel, SlowModel, running, sound, wait_until, wav
from tests.tone_model import RATE, synthesize

SAID = "abc def" + "_" * 20 + "gh bad"
SPOKEN = "_____abc def" + "_" * 12 + "gh" + "_" * 30


def test_the_page_needs_nothing_from_elsewhere_and_no_inline_handlers():
    html, policy = build_page()
    addresses = re.findall(r"(?:https?:)?//[\w.-]+", html)
    assert set(addresses) <= {"http://www.w3.org"}  # the name space of its icon
    assert not re.search(r"\son\w+=", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", html)
    assert "style=" not in html
    assert not re.search(r"/\*[A-Z]+\*/", html), "a part was not put in"
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_the_policy_and_headers_are_sent():
    with running() as server:
        answer = httpx.get(server.url)
    assert answer.headers["content-security-policy"] == build_page()[1]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"


@pytest.fixture(scope="module")
def microphone(tmp_path_factory):
    path = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    path.write_bytes(sound(np.concatenate([np.zeros(RATE, np.float32), synthesize(SPOKEN)])))
    return path


@pytest.fixture(scope="module")
def browser(microphone):
    with browse(microphone) as it:
        yield it


@pytest.fixture(scope="module")
def server():
    with running(LiveToneModel(), max_upload_mb=1.0) as it:
        yield it


@pytest.fixture
def page(browser, server):
    with open_page(browser, server.url) as page:
        page.locator("#model", has_text="tones").wait_for()
        yield page


def send(page, content, name="story.wav"):
    page.set_input_files("#file", {"name": name, "mimeType": "audio/wav", "buffer": content})


def downloaded(page, button):
    with page.expect_download() as waiting:
        page.click(button)
    return waiting.value.suggested_filename, waiting.value.path().read_text(encoding="utf-8")


def test_a_file_becomes_words_that_play_and_files_to_keep(page, server):
    send(page, wav(SAID))
    page.locator("#downloads").wait_for()
    words = page.locator("#transcript .word")
    assert words.all_text_contents() == ["abc", "def", "gh", "bad"]
    assert page.locator(".segment").count() == 2
    assert "4 words" in page.text_content("#facts")
    assert words.nth(0).get_attribute("class") == "word sure"
    assert re.fullmatch(r"\d+ % sure, at 0:00", words.nth(0).get_attribute("title"))
    words.nth(2).click()
    page.wait_for_selector(".word.now")
    assert 2.7 < page.eval_on_selector("#audio", "audio => audio.currentTime") < 4.5
    name, srt = downloaded(page, "[data-format=srt]")
    assert name == "story.srt"
    assert srt.startswith("1\n00:00:00,000 --> 00:00:0")
    name, eaf = downloaded(page, "[data-format=eaf]")
    values = [v.text for v in ElementTree.fromstring(eaf).iter("ANNOTATION_VALUE")]
    assert (name, values) == ("story.eaf", ["abc def", "gh bad", "abc", "def", "gh", "bad"])
    assert server.received() == []


def test_words_can_be_reached_with_the_keyboard(page):
    send(page, wav(SAID))
    page.locator("#downloads").wait_for()
    page.locator("#transcript .word").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => document.activeElement.textContent") == "gh"
    page.keyboard.press("Enter")
    page.wait_for_selector(".word.now")
    assert page.eval_on_selector("#audio", "audio => audio.currentTime") > 2.7


def test_what_is_spoken_becomes_words_that_can_be_heard_again(page):
    page.click("#speak")
    page.locator("#transcript .word", has_text="gh").wait_for()
    assert page.is_visible("#live")
    page.click("#stop")
    page.locator("#downloads").wait_for()
    assert page.locator("#transcript .word").all_text_contents()[:3] == ["abc", "def", "gh"]
    assert page.locator(".segment").count() == 2
    assert page.is_visible("#recording")
    page.wait_for_function("() => document.getElementById('audio').duration > 3")
    name, eaf = downloaded(page, "[data-format=eaf]")
    assert name == "recording.eaf"
    media = ElementTree.fromstring(eaf).find(".//MEDIA_DESCRIPTOR")
    assert media.get("RELATIVE_MEDIA_URL") == "./recording.wav"
    page.locator("#transcript .word").nth(1).click()
    page.wait_for_selector(".word.now")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"this is a text", "not audio"), (b"\0" * 1_500_000, "takes up to 1 MB")],
    ids=["text", "too large"],
)
def test_what_is_wrong_is_said_and_the_next_file_works(page, content, says):
    send(page, content)
    page.locator("#error", has_text=says).wait_for()
    send(page, wav("abc"))
    page.locator("#transcript .word", has_text="abc").wait_for()
    assert page.is_hidden("#error")


def test_a_file_can_be_dropped_and_cancelled(page):
    model = SlowModel()
    with running(model, workers=1) as server:
        page.goto(server.url)
        page.locator("#model", has_text="tones").wait_for()
        dropped = page.evaluate_handle(
            """bytes => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], "dropped.wav"));
                return transfer;
            }""",
            list(wav("abc")),
        )
        page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
        wait_until(lambda: model.num_windows == 1)
        assert page.text_content("#title") == "dropped.wav"
        page.click("#stop")
        page.locator("#work").wait_for(state="hidden")
        model.go_on.set()
        wait_until(lambda: server.service.places.taken == 0)
        assert page.is_hidden("#error")
        assert page.is_enabled("#choose")


def test_a_server_that_is_gone_is_said(page):
    with running() as server:
        page.goto(server.url)
        page.locator("#model", has_text="tones").wait_for()
    send(page, wav("abc"))
    page.locator("#error", has_text="cannot be reached").wait_for()


def test_a_name_full_of_html_is_shown_as_it_is(page):
    name = "<img src=x onerror=alert(1)>.wav"
    send(page, wav("abc"), name)
    page.locator("#downloads").wait_for()
    assert page.text_content("#title") == name
    assert page.locator("#result img").count() == 0


def test_what_the_browser_cannot_play_is_transcribed_all_the_same(page):
    send(page, sound(synthesize("abc"), format="AIFF"), "story.aiff")
    page.locator("#transcript .word", has_text="abc").click()
    page.locator("#unplayable").wait_for()
    assert page.is_hidden("#error")


def test_silence_says_so(page):
    send(page, sound(np.zeros(RATE, np.float32)))
    page.get_by_text("No speech was heard").wait_for()


def test_it_fits_a_small_screen(page):
    page.set_viewport_size({"width": 320, "height": 640})
    send(page, wav(SAID))
    page.locator("#downloads").wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") == 320
