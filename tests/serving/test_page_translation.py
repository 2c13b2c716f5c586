"""The page of a server that translates, in a real browser."""

import io
import json

import numpy as np
import pytest
import soundfile

from speechjepa.data.synthetic.espeak import synthesise
from speechjepa.inference.model import load
from speechjepa.serving.translators import ServedTranslator
from tests.serving.browser import browse, open_page
from tests.serving.server import LiveToneModel, running, sound, wav
from tests.tone_model import RATE
from tests.translation_bundle import bundle


@pytest.fixture(scope="module")
def speech():
    return synthesise("uno dos tres cuatro", "es").waveform


@pytest.fixture(scope="module")
def browser(speech, tmp_path_factory):
    microphone = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    pause = np.zeros(RATE, np.float32)
    microphone.write_bytes(sound(np.concatenate([pause, speech, pause, pause])))
    with browse(microphone) as it:
        yield it


def translator(folder, **options):
    return ServedTranslator(load(bundle(folder, **options)), "es-yy", chunk_seconds=0.32)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = translator(tmp_path_factory.mktemp("bundle"))
    with running(LiveToneModel(), translator=found, max_upload_mb=2.0) as it:
        yield it


@pytest.fixture
def page(browser, server):
    with open_page(browser, server.url) as page:
        page.locator("#task-field").wait_for()
        yield page


def send(page, content, name="story.wav"):
    page.set_input_files("#file", {"name": name, "mimeType": "audio/wav", "buffer": content})
    page.locator("#downloads").wait_for()


def seconds(page, player):
    page.wait_for_function(f"() => document.getElementById('{player}').duration > 0")
    return page.eval_on_selector(f"#{player}", "audio => audio.duration")


def downloaded(page, button):
    with page.expect_download() as waiting:
        page.click(button)
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def test_a_file_is_translated_into_speech_and_text_to_hear_and_keep(page, server, speech):
    assert page.is_hidden("#aloud-field") and page.is_visible("#hotwords-field")
    page.select_option("#task", "translate")
    assert page.is_visible("#aloud-field") and page.is_hidden("#hotwords-field")
    assert page.text_content("#model") == "es-yy"
    send(page, sound(speech), "Zoë <b>.wav")
    said = page.locator("#transcript .said")
    assert said.count() == 1 and said.text_content()
    assert "xx → yy" in page.text_content("#facts")
    assert seconds(page, "audio") == pytest.approx(len(speech) / RATE, abs=0.1)
    name, content = downloaded(page, "#speech")
    waveform, rate = soundfile.read(io.BytesIO(content))
    assert (name, rate) == ("Zoë _b_-yy.wav", RATE) and np.abs(waveform).max() > 0.01
    assert seconds(page, "spoken") == pytest.approx(len(waveform) / rate, abs=0.1)
    said.click()
    page.wait_for_function("() => !document.getElementById('spoken').paused")
    _, content = downloaded(page, "[data-format=json]")
    (segment,) = json.loads(content)["segments"]
    assert segment["units"] and len(segment["times"]) == len(segment["units"])
    _, srt = downloaded(page, "[data-format=srt]")
    assert b" --> " in srt
    assert server.received() == []


def test_the_task_can_be_changed_back(page):
    page.select_option("#task", "translate")
    page.select_option("#task", "transcribe")
    send(page, wav("abc"))
    assert page.locator("#transcript .word").all_text_contents() == ["abc"]
    assert page.is_hidden("#spoken-player")


def test_what_is_spoken_is_said_in_the_other_language_while_it_is_heard(page):
    page.select_option("#task", "translate")
    page.click("#speak")
    page.locator("#transcript .said").first.wait_for()
    assert page.is_visible("#live")
    page.click("#stop")
    page.locator("#downloads").wait_for()
    assert page.is_hidden("#error")
    assert seconds(page, "spoken") > 0.5 and seconds(page, "audio") > 0.5
    name, content = downloaded(page, "#speech")
    assert name == "recording-yy.wav" and len(content) > 10_000
    _, content = downloaded(page, "[data-format=json]")
    segments = json.loads(content)["segments"]
    assert segments[0]["units"] and segments[0]["speech_start"] == 0


def test_a_model_of_whole_utterances_speaks_after_each_pause(browser, tmp_path):
    found = translator(tmp_path, head="autoregressive")
    with running(translator=found) as server, open_page(browser, server.url) as page:
        page.locator("#task-field").wait_for()
        assert page.locator("#task option").count() == 1
        assert "after each pause" in page.text_content("#aloud-field")
        page.click("#speak")
        units = page.locator("#transcript .said.units")
        units.first.wait_for()
        assert page.is_visible("#live")
        page.click("#stop")
        page.locator("#downloads").wait_for()
        assert all(part.isdecimal() for part in units.first.text_content().split())
        assert page.is_hidden("[data-format=srt]") and page.is_visible("[data-format=json]")
        assert seconds(page, "spoken") > 0.1


def test_what_is_wrong_is_said_and_the_next_file_works(page, speech):
    page.select_option("#task", "translate")
    page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": b"text"})
    page.locator("#error", has_text="not audio").wait_for()
    page.set_viewport_size({"width": 320, "height": 640})
    send(page, sound(speech))
    assert page.is_hidden("#error")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 320
