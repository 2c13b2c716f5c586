"""Voices that were made of recordings: by programs that stand in for theirs, and by theirs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import soundfile

from speechjepa.data.synthetic import recorded_voices
from speechjepa.data.synthetic.espeak import phonemes
from speechjepa.data.synthetic.recorded_voices import (
    VOICES,
    RecordedVoiceCorpus,
    _is_written,
    _Said,
    _speak,
    make_recorded_voice_corpus,
    missing_packages,
)
from speechjepa.data.synthetic.text import words_of_locale
from speechjepa.errors import DataError

TONE = """
import numpy, soundfile
def tone(path, letters):
    soundfile.write(path, 0.3 * numpy.sin(numpy.arange(800 * letters) / 5), 16000, format="WAV")
"""
FLITE = f"""#!{sys.executable}
import sys
{TONE}
text = sys.argv[sys.argv.index("-t") + 1]
tone(sys.argv[-1], len(text))
"""
PICO = f"""#!{sys.executable}
import re, sys
{TONE}
(text,) = re.fullmatch("<speed level='[0-9]+'>([^<>&]*)</speed>", sys.argv[-1]).groups()
tone(sys.argv[sys.argv.index("-w") + 1], len(text))
"""
RHVOICE = f"""#!{sys.executable}
import sys
{TONE}
assert sys.argv[sys.argv.index("-p") + 1] == "Letícia-F123"
tone(sys.argv[sys.argv.index("-o") + 1], len(sys.stdin.buffer.read().decode()))
"""
FESTIVAL = f"""#!{sys.executable}
import re, sys
{TONE}
if sys.argv[1] == "--pipe":
    print("(lp_diphone)")
    sys.exit()
script = open(sys.argv[2], encoding="iso-8859-1").read()
said = re.findall(r'Text "(.*?)"\\)\\) "(.*?)"', script)
for text, path in said[:3]:
    tone(path, len(text))
sys.exit(-11)  # as Festival ends on what it cannot say
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of programs, before all others."""
    folder = tmp_path / "programs"
    folder.mkdir()
    programs = {"flite": FLITE, "festival": FESTIVAL, "pico2wave": PICO, "RHVoice-test": RHVOICE}
    for name, program in programs.items():
        (folder / name).write_text(program, encoding="utf-8")
        (folder / name).chmod(0o755)
    voices = tmp_path / "voices"
    (voices / "Leticia-F123").mkdir(parents=True)
    info = "format=4\nname=Letícia-F123\nfile_name=Leticia-F123\n"
    (voices / "Leticia-F123" / "voice.info").write_text(info, encoding="utf-8")
    (voices / "irina").mkdir()  # what a removed package may leave
    monkeypatch.setattr(recorded_voices, "_RHVOICE_VOICES", voices)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "train" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_each_voice_says_its_minutes_and_the_same_again(programs: Path, tmp_path: Path) -> None:
    settings = RecordedVoiceCorpus(
        voices=("rms", "lp_diphone", "en-GB", "Leticia-F123"), minutes=0.2, words=("don't",)
    )
    folder = make_recorded_voice_corpus(tmp_path / "a", settings, num_workers=1)
    found = rows(folder)
    for voice in settings.voices:
        of_voice = [row for row in found if row["speaker"] == voice]
        seconds = sum(row["duration"] for row in of_voice)
        assert seconds >= 12.0
        assert seconds - of_voice[-1]["duration"] < 12.0 + 10 * 8.0  # whole batches are kept
        assert {row["lang"] for row in of_voice} == {VOICES[voice].language}
    for row in found:
        assert soundfile.info(folder / "train" / row["file_name"]).duration == pytest.approx(
            row["duration"], abs=1e-3
        )
    again = make_recorded_voice_corpus(tmp_path / "b", settings, num_workers=2)
    assert rows(again) == found
    audio = found[0]["file_name"]
    assert (folder / "train" / audio).read_bytes() == (again / "train" / audio).read_bytes()


def test_what_a_voice_cannot_say_is_left_out(programs: Path, tmp_path: Path) -> None:
    # The program dies on the fourth of each ten.
    settings = RecordedVoiceCorpus(voices=("lp_diphone",), minutes=0.3)
    found = rows(make_recorded_voice_corpus(tmp_path / "a", settings, num_workers=1))
    assert {int(row["id"][-1]) for row in found} == {0, 1, 2}
    assert len(found) > 3


def test_a_voice_that_never_speaks_is_named(programs: Path, tmp_path: Path) -> None:
    (programs / "flite").write_text("#!/bin/sh\nexit 0\n")
    settings = RecordedVoiceCorpus(voices=("rms",), minutes=0.1)
    with pytest.raises(DataError, match="'rms' says nothing for"):
        make_recorded_voice_corpus(tmp_path / "a", settings, num_workers=1)
    assert not (tmp_path / "a").exists()


def test_what_is_missing_is_said_before_anything_is_made(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("flite", "pico2wave", "RHVoice-test"):
        (programs / name).unlink()
    monkeypatch.setenv("PATH", str(programs))
    voices = ("rms", "lp_diphone", "pc_diphone", "de-DE", "Leticia-F123", "anatol")
    wanted = "festival festvox-itapc16k flite libttspico-utils rhvoice rhvoice-ukrainian$"
    with pytest.raises(DataError, match=f"apt install {wanted}"):
        make_recorded_voice_corpus(tmp_path / "a", RecordedVoiceCorpus(voices=voices))


def test_a_voice_of_rhvoice_that_is_not_there_is_missing(programs: Path, tmp_path: Path) -> None:
    # The program would speak with another, without a word.
    settings = RecordedVoiceCorpus(voices=("Leticia-F123", "anatol", "irina"))
    with pytest.raises(DataError, match="apt install rhvoice-russian rhvoice-ukrainian$"):
        make_recorded_voice_corpus(tmp_path / "a", settings)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"voices": ("rms", "nobody")}, "`voices` must be among"),
        ({"voices": ()}, "`voices` must be among"),
        ({"voices": ("rms", "rms")}, "named once"),
        ({"minutes": 0.0}, "`minutes` must be more than 0"),
        ({"minutes": float("nan")}, "`minutes` must be more than 0"),
        ({"words": ("one", "two three")}, "has 'two three'"),
        ({"words": ("",)}, "has ''"),
    ],
)
def test_settings_that_nobody_can_follow_are_refused(
    settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        RecordedVoiceCorpus(**settings)


def test_another_folder_is_not_replaced(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("my own")
    with pytest.raises(DataError, match="not a synthetic corpus"):
        make_recorded_voice_corpus(tmp_path / "mine", RecordedVoiceCorpus(voices=("rms",)))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "my own"


@pytest.mark.parametrize("name", sorted(VOICES))
def test_texts_of_each_voice_can_be_read_as_phones(name: str) -> None:
    assert phonemes("a", VOICES[name].espeak)


def test_what_a_voice_has_no_letters_for_is_not_said() -> None:
    assert _is_written("tšekin", "utf-8")
    assert not _is_written("tšekin", VOICES["suo_fi_lj_diphone"].encoding)


def test_festival_gets_hindi_letters_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = []

    def run(command: list[str]) -> str:
        scripts.append(Path(command[-1]).read_text(encoding="utf-8"))
        return ""

    monkeypatch.setattr(recorded_voices, "_run", run)
    said = _Said("a", unicodedata.normalize("NFC", 'फ़िजी "x" \\'), 1.0)
    assert _speak("hindi_NSK_diphone", [said]) == [None]
    assert 'Text "\u095eिजी  x   ")' in scripts[0]  # one code point, neither quotes nor backslash


def test_a_program_that_hangs_is_named(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (programs / "flite").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(recorded_voices, "_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(DataError, match="flite gave no answer in 0.2 s"):
        _speak("rms", [_Said("a", "hello", 1.0)])


@pytest.mark.skipif(shutil.which("pico2wave") is None, reason="SVOX Pico is not installed")
def test_pico_does_not_read_escapes_aloud() -> None:
    plain, apostrophe = _speak("en-GB", [_Said("a", "dont", 1.0), _Said("b", "don't", 1.0)])
    assert plain is not None and apostrophe is not None
    assert len(apostrophe[0]) < 1.3 * len(plain[0])


def test_words_of_a_locale_are_in_its_script() -> None:
    words = words_of_locale("hi")
    assert {"भारत", "सोमवार", "जनवरी"} <= set(words)
    with pytest.raises(DataError, match="no locale 'xx-nowhere'"):
        words_of_locale("xx-nowhere")
    assert all("ऀ" <= letter <= "ॿ" or letter in "\u200c\u200d-" for w in words for letter in w)


@pytest.mark.skipif(bool(missing_packages(["bdl"])), reason="RHVoice's bdl is not installed")
def test_rhvoice_speaks_as_slowly_as_asked() -> None:
    fast, slow = _speak("bdl", [_Said("a", "hello there", 0.7), _Said("b", "hello there", 1.4)])
    assert fast is not None and slow is not None
    assert 1.6 < len(slow[0]) / len(fast[0]) < 2.5


@pytest.mark.skipif(shutil.which("flite") is None, reason="Flite is not installed")
def test_flite_speaks(tmp_path: Path) -> None:
    settings = RecordedVoiceCorpus(voices=("awb",), minutes=0.1)
    found = rows(make_recorded_voice_corpus(tmp_path / "a", settings, num_workers=1))
    seconds = {row["text"]: row["duration"] for row in found}
    assert max(seconds.values()) > 1.5 * min(seconds.values()) > 0.1
