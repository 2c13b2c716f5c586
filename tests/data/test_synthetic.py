from __future__ import annotations

import hashlib
import importlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechjepa.data.synthetic import corpus, espeak, spoken
from speechjepa.data.synthetic import text as synthetic_text
from speechjepa.data.synthetic.acoustics import disturb, disturb_and_place
from speechjepa.data.synthetic.corpus import SyntheticCorpus, make_corpus
from speechjepa.data.synthetic.espeak import espeak_languages, phonemes, synthesise
from speechjepa.data.synthetic.text import LANGUAGES, Meaning, draw_meaning, express
from speechjepa.errors import DataError

SMALL = SyntheticCorpus(
    languages=("es", "fi"),
    labelled=("es",),
    minutes=1.2,
    dev_minutes=0.3,
    test_minutes=0.2,
    label_minutes=(1,),
)


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("synthetic") / "small", SMALL, num_workers=1)


def rows(folder: Path, split: str) -> list[dict[str, Any]]:
    lines = (folder / split / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# Speech


def test_what_was_spoken_before_does_not_change_the_speech() -> None:
    def speak(voice: str) -> np.ndarray:
        return synthesise("diecinueve noventa", "es", voice=voice, seed=3).waveform

    before = {voice: speak(voice) for voice in ("f2", "klatt", "whisper")}
    synthesise("something else altogether", "en-us", voice="m7", rate=220, pitch=80)
    for voice, waveform in before.items():
        np.testing.assert_array_equal(waveform, speak(voice))


def test_speech_is_float32_at_the_rate_that_was_asked_for() -> None:
    slow = synthesise("hello wonderful world", "en-us", rate=120, sample_rate=16000)
    assert slow.waveform.dtype == np.float32
    assert 0.1 < np.abs(slow.waveform).max() <= 1.0
    half = synthesise("hello wonderful world", "en-us", rate=120, sample_rate=8000)
    assert len(half.waveform) == pytest.approx(len(slow.waveform) / 2, abs=2)
    fast = synthesise("hello wonderful world", "en-us", rate=240)
    assert len(fast.waveform) < 0.75 * len(slow.waveform)


def test_words_end_where_a_pause_or_the_next_word_begins() -> None:
    speech = synthesise("hoy es martes, doce de mayo", "es", voice="m6", formant_ratio=1.05)
    for word, behind in itertools.pairwise(speech.words):
        assert word.start < word.end <= behind.start
    martes, doce = speech.words[2:4]
    assert doce.start - martes.end > 0.1, "the comma"
    samples = speech.waveform[round(16000 * (martes.end + 0.03)) : round(16000 * doce.start)]
    assert np.abs(samples).max() < 0.1 * np.abs(speech.waveform).max()
    assert len(speech.waveform) / 16000 - speech.words[-1].end > 0.2, "the silence at the end"


def test_a_word_that_espeak_does_not_tell_of_is_spoken_nevertheless() -> None:
    speech = synthesise("목요일", "ko")  # some single words of Korean begin with no event
    assert speech.words == []
    assert len(speech.waveform) / 16000 > 0.5
    assert speech.phones[0].phone == "m"


def test_word_times_rise_and_point_at_the_words_of_the_text() -> None:
    text = "päivää, wonderful world"
    speech = synthesise(text, "en-us", formant_ratio=1.1)
    assert [text[w.position : w.position + w.length] for w in speech.words] == [
        "päivää",
        "wonderful",
        "world",
    ]
    starts = [word.start for word in speech.words]
    assert starts == sorted(starts)
    assert starts[0] >= 0.0 and starts[-1] < len(speech.waveform) / speech.sample_rate


def test_formant_ratio_moves_the_spectrum_and_keeps_the_duration() -> None:
    low = synthesise("seis siete ocho", "es", formant_ratio=0.9).waveform
    high = synthesise("seis siete ocho", "es", formant_ratio=1.1).waveform
    assert len(low) == pytest.approx(len(high), rel=0.1)

    def centroid(waveform: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(waveform, 1 << 17)) ** 2
        return float((power * np.arange(len(power))).sum() / power.sum())

    assert centroid(high) > 1.1 * centroid(low)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"language": "xx"}, "does not speak 'xx'"),
        ({"voice": "nobody"}, "no voice 'nobody'"),
        ({"rate": 1000}, "`rate` must be 80 to 450, but is 1000"),
        ({"pitch": 34, "pitch_range": 56}, "`pitch_range` must be 0 to 55, but is 56"),
        ({"text": " "}, "says nothing"),
    ],
)
def test_what_cannot_be_spoken_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        synthesise(**{"text": "hola", "language": "es", **arguments})


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DataError, match=r"espeakng-loader.*speechjepa\[synthetic\]"):
        espeak._loader()
    with pytest.raises(DataError, match=r"num2words.*speechjepa\[synthetic\]"):
        synthetic_text._package("num2words")


# Text


def test_forty_languages_have_text_and_a_voice() -> None:
    assert len(LANGUAGES) >= 40
    assert {language.voice for language in LANGUAGES.values()} <= set(espeak_languages())


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_text_is_words_alone_and_most_meanings_can_be_said(language: str) -> None:
    sentences = [express(draw_meaning(index), language) for index in range(150)]
    said = [sentence for sentence in sentences if sentence is not None]
    assert len(said) >= 100
    for sentence in said:
        assert sentence.text == sentence.text.lower()
        assert not any(character.isdigit() for character in sentence.text)
        assert sentence.text.split() == sentence.spoken.replace(",", " ").split()


def test_an_item_means_the_same_in_every_language() -> None:
    meaning = Meaning("k", (("amount", (53, "CZK")), ("territory", "DE"), ("number", 1987)))
    assert {language: express(meaning, language).text for language in ("en", "es", "fi", "tr")} == {  # type: ignore[union-attr]
        "en": "fifty three czech korunas germany one thousand nine hundred and eighty seven",
        "es": "cincuenta y tres coronas checas alemania mil novecientos ochenta y siete",
        "fi": "viisikymmentäkolme tšekin korunaa saksa "
        "tuhat yhdeksänsataakahdeksankymmentäseitsemän",
        "tr": "elliüç çek korunası almanya bindokuzyüzseksenyedi",
    }


def test_turkish_keeps_its_two_letters_i() -> None:
    sentence = express(Meaning("k", (("territory", "IE"), ("territory", "IQ"))), "tr")
    assert sentence is not None and sentence.text == "irlanda ırak"


def test_one_language_does_not_change_the_words_of_another() -> None:
    meaning = Meaning("k", (("month", draw_date()), ("weekday", draw_date())))
    express(meaning, "he")
    sentence = express(meaning, "ko")
    assert sentence is not None and sentence.text == "삼 월 목요일"


def draw_date() -> Any:
    import datetime

    return datetime.date(1987, 3, 5)


def test_the_seed_changes_what_is_said() -> None:
    first = [draw_meaning(index, seed=1) for index in range(20)]
    assert first == [draw_meaning(index, seed=1) for index in range(20)]
    assert first != [draw_meaning(index, seed=2) for index in range(20)]


def test_text_is_what_espeak_reads_in_its_own_language() -> None:
    for index in range(30):
        sentence = express(draw_meaning(index), "es")
        assert sentence is not None
        assert "(" not in phonemes(sentence.spoken, "es")


# Corpus


def test_every_row_has_its_columns_and_its_audio(small_corpus: Path) -> None:
    for split, minutes, languages in (("train", 1.2, 2), ("dev", 0.3, 1), ("test", 0.2, 1)):
        of_split = rows(small_corpus, split)
        listed = {row["file_name"] for row in of_split}
        folder = small_corpus / split
        assert listed == {str(p.relative_to(folder)) for p in (folder / "audio").iterdir()}
        seconds = 0.0
        for row in of_split:
            columns = {"file_name", "duration", "id", "speaker", "lang", "key"}
            assert set(row) == columns | ({"text"} if row["lang"] == "es" else set())
            info = soundfile.info(folder / row["file_name"])
            assert (info.samplerate, info.channels) == (16000, 1)
            assert info.frames / 16000 == pytest.approx(row["duration"], abs=1e-3)
            seconds += row["duration"]
        assert 60 * minutes * languages <= seconds < 60 * minutes * languages + 15 * languages


def test_no_file_is_silent_clipped_or_too_short_for_its_text(small_corpus: Path) -> None:
    for row in rows(small_corpus, "train"):
        waveform, _ = soundfile.read(small_corpus / "train" / row["file_name"])
        assert 0.05 < np.abs(waveform).max() < 0.95
        assert len(row.get("text", "")) / row["duration"] < 25


def test_voices_and_texts_of_dev_and_test_are_never_in_train(small_corpus: Path) -> None:
    for column in ("speaker", "text", "key", "id"):
        seen = [
            {row[column] for row in rows(small_corpus, split) if column in row}
            for split in ("train", "dev", "test")
        ]
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2]), column


def test_train_says_the_same_in_every_language(small_corpus: Path) -> None:
    keys: dict[str, set[str]] = {"es": set(), "fi": set()}
    for row in rows(small_corpus, "train"):
        keys[row["lang"]].add(row["key"])
    assert len(keys["es"] & keys["fi"]) >= 0.6 * min(map(len, keys.values()))


def test_label_lists_hold_their_minutes_of_transcribed_audio(small_corpus: Path) -> None:
    ids = (small_corpus / "train" / "1min.txt").read_text().splitlines()
    chosen = [row for row in rows(small_corpus, "train") if row["id"] in set(ids)]
    assert len(chosen) == len(ids)
    assert all("text" in row for row in chosen)
    assert 60 <= sum(row["duration"] for row in chosen) < 75


def test_two_processes_write_the_same_files_as_one(small_corpus: Path, tmp_path: Path) -> None:
    again = make_corpus(tmp_path / "again", SMALL, num_workers=2)
    assert digest(again) == digest(small_corpus)


def test_a_finished_corpus_is_left_alone(
    small_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise AssertionError("synthesised again")

    monkeypatch.setattr(corpus, "_write_split", fail)
    assert make_corpus(small_corpus, SMALL) == small_corpus


def test_other_settings_replace_the_corpus(tmp_path: Path) -> None:
    tiny = {"minutes": 0.1, "dev_minutes": 0.05, "test_minutes": 0.05, "label_minutes": ()}
    folder = tmp_path / "corpus"
    make_corpus(folder, SyntheticCorpus(languages=("fi",), **tiny), num_workers=1)
    make_corpus(folder, SyntheticCorpus(languages=("tr",), **tiny), num_workers=1)
    assert {row["lang"] for row in rows(folder, "train")} == {"tr"}
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_an_interrupted_run_leaves_no_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any, **settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(spoken, "synthesise", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_corpus(tmp_path / "corpus", SMALL, num_workers=1)
    assert not (tmp_path / "corpus").exists()


def test_a_folder_with_other_things_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("five years of work")
    with pytest.raises(DataError, match="is not a synthetic corpus"):
        make_corpus(tmp_path, SMALL)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"languages": ("xx",)}, "has 'xx' instead"),
        ({"labelled": ("it",)}, "`labelled` must be among"),
        ({"label_minutes": (20,)}, "`label_minutes` must be at most"),
        ({"dev_voices": ("m1",)}, "m1 is in two"),
        ({"audio_format": "mp3"}, "must be flac or opus"),
        ({"invented": 1.5}, "`invented` must be 0 to 1"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SyntheticCorpus(**{"languages": ("es",), "minutes": 10.0, **changes})


def test_disturbed_speech_differs_from_clean_and_is_reproducible() -> None:
    clean = synthesise("uno dos tres", "es").waveform
    first, again, other = (disturb(clean, np.random.default_rng(seed), 16000) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other)
    assert first.dtype == np.float32 and np.isfinite(first).all()


def test_disturbed_speech_is_later_by_what_is_said() -> None:
    click = np.zeros(16000, np.float32)
    click[4000:4100] = 0.5
    for seed in range(8):
        waveform, later = disturb_and_place(click, np.random.default_rng(seed), 16000)
        loudest = int(np.abs(waveform).argmax()) / 16000
        assert 0.25 - 0.001 <= loudest - later <= 0.2625
        assert np.array_equal(waveform, disturb(click, np.random.default_rng(seed), 16000))


def test_phones_follow_each_other_and_end_in_a_pause() -> None:
    speech = synthesise("mano", "es")
    names = [phone.phone.strip("',") for phone in speech.phones]
    assert names[:4] == ["m", "a", "n", "o"] and set(names[4:]) == {""}
    starts = [phone.start for phone in speech.phones]
    assert starts == sorted(starts) and starts[-1] <= len(speech.waveform) / speech.sample_rate
