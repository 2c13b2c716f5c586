"""Words of a stream of logits, with and without a language model: final means final."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from speechjepa.inference import stream_words
from speechjepa.inference.search import BeamConfig, BeamSearch
from speechjepa.inference.stream_words import StreamWords, WordsConfig
from speechjepa.metrics.calibration import ScoreMap
from speechjepa.text.ngram import estimate_ngram
from speechjepa.text.vocabulary import Vocabulary

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog", "the mat"]
VOCABULARY = Vocabulary.build(TEXTS)
FRAME = 0.02


def logits_of(text: str, sure: float = 12.0) -> Tensor:
    """Three frames for each character; "_" is a frame of silence; (T, V)."""
    frames = []
    for character in text:
        blank = torch.zeros(len(VOCABULARY))
        blank[VOCABULARY.blank_id] = 6.0
        if character == "_":
            frames.append(blank)
            continue
        spike = blank.clone()
        spike[VOCABULARY.encode(character)[0]] = sure
        frames += [blank, spike, blank]
    return torch.stack(frames) if frames else torch.zeros(0, len(VOCABULARY))


def confuse(logits: Tensor, position: int, wrong: str, by: float = 0.5) -> Tensor:
    """Make a character of `logits_of` look a little more like another."""
    logits = logits.clone()
    logits[3 * position + 1, VOCABULARY.encode(wrong)[0]] = 12.0 + by
    return logits


def opened(search: BeamSearch | None = None, **config) -> StreamWords:
    return StreamWords(VOCABULARY, search, frame_seconds=FRAME, config=WordsConfig(**config))


def pushed(words: StreamWords, logits: Tensor, size: int = 16) -> list:
    nothing = logits[:0]
    found = [f for part in logits.split(size) for f in words.push(part, nothing)]
    return [*found, *words.push(nothing, nothing, last=True)]


def final(found: list) -> list[str]:
    return [word["word"] for f in found for word in f.final]


@pytest.fixture
def character_search(tmp_path: Path) -> BeamSearch:
    pytest.importorskip("flashlight.lib.text.decoder")
    sequences = [list(text.replace(" ", "|")) for text in TEXTS]
    model = estimate_ngram(sequences, 5, words=VOCABULARY.symbols[1:])
    model.write_arpa(tmp_path / "characters.arpa")
    return BeamSearch(VOCABULARY, tmp_path / "characters.arpa", BeamConfig())


@pytest.fixture
def word_search(tmp_path: Path) -> BeamSearch:
    pytest.importorskip("flashlight.lib.text.decoder")
    estimate_ngram([text.split() for text in TEXTS], 3).write_arpa(tmp_path / "words.arpa")
    return BeamSearch(VOCABULARY, tmp_path / "words.arpa", BeamConfig(kind="word"))


@pytest.mark.parametrize("size", [1, 5, 16, 1000])
def test_the_best_path_gives_each_word_with_its_boundary(size):
    found = pushed(opened(), logits_of("the cat sat"), size)
    assert final(found) == ["the", "cat", "sat"]


def test_a_word_is_final_in_the_frame_of_its_boundary_and_placed_by_hand():
    words, logits = opened(), logits_of("the cat")
    nothing = logits[:0]
    assert words.push(logits[:10], nothing)[0].final == []  # "the" and the frame before its space
    (found,) = words.push(logits[10:11], nothing)
    (word,) = found.final
    # Spikes in frames 1, 4 and 7 of 20 ms, and 20 ms around them.
    assert (word["word"], word["start"], word["end"]) == ("the", 0.0, 0.18)
    # e^12 against e^6 and 12 times e^0, three times.
    z = 2.718281828**12
    assert word["score"] == pytest.approx(z / (z + 2.718281828**6 + 12), abs=1e-3)


def test_a_pause_ends_a_word_without_a_boundary_and_happens_once():
    found = pushed(opened(pause_seconds=0.4), logits_of("the" + "_" * 60 + "cat" + "_" * 10))
    assert final(found) == ["the", "cat"]
    with_end = [[word["word"] for word in f.final] for f in found if f.endpoint]
    assert with_end == [["the"], ["cat"]]


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_pauses_part_alike_however_the_stream_is_cut(size):
    found = pushed(opened(pause_seconds=0.4), logits_of("a cat" + "_" * 30 + "a dog"), size)
    assert final(found) == ["a", "cat", "a", "dog"]
    assert sum(f.endpoint for f in found) == 2


def test_tentative_frames_are_guessed_and_forgotten():
    words, logits = opened(), logits_of("the cat sat")
    (found,) = words.push(logits[:12], logits[12:30])
    assert [word["word"] for word in found.final] == ["the"]
    assert [word["word"] for word in found.partial] == ["cat", "sa"]
    assert final(words.push(logits[12:], logits[:0], last=True)) == ["cat", "sat"]


def test_a_word_that_ends_in_tentative_frames_is_not_final_yet(character_search):
    logits = logits_of("the cat ")
    for search in (None, character_search):
        words = opened(search, settle_seconds=0.0)
        # The boundary after "cat" is frame 22.
        (found,) = words.push(logits[:22], logits[22:], nearly_sure=True)
        assert [word["word"] for word in found.final] == ["the"]
        assert [word["word"] for word in found.partial] == ["cat"]
        assert final(words.push(logits[22:23], logits[23:], nearly_sure=True)) == ["cat"]


def test_tentative_frames_let_a_word_settle_where_they_are_nearly_sure(character_search):
    # The beam holds "cat" and "mat"; the boundary after them is frame 22.
    logits = torch.cat([confuse(logits_of("the mat "), 4, "c", by=0.0), logits_of("on the log")])
    settled = []
    for ahead, sure in ((0, False), (6, False), (6, True)):
        words = opened(character_search, settle_seconds=0.1)
        for frame in range(len(logits)):
            tentative = logits[frame + 1 : frame + 1 + ahead]
            found = words.push(logits[frame : frame + 1], tentative, nearly_sure=sure)
            if any(len(f.final) and f.final[-1]["word"] in ("mat", "cat") for f in found):
                settled.append(frame)
                break
    assert settled[0] == settled[1] > settled[2] == 22


def test_a_pause_may_reach_into_tentative_frames_and_is_one_pause():
    words, silence = opened(pause_seconds=0.4), logits_of("_" * 40)  # 0.4 s are 20 frames
    speech = torch.cat([logits_of("the"), silence[:11]])  # the last frame of "e" is silent too
    assert not any(f.endpoint for f in words.push(speech, silence[:7], nearly_sure=True))
    assert not any(f.endpoint for f in words.push(silence[:0], silence[:20]))
    found = words.push(silence[:0], silence[:8], nearly_sure=True)
    assert [f.endpoint for f in found] == [True, False] and final(found) == ["the"]
    rest = [f for part in silence.split(5) for f in words.push(part, silence[:8], nearly_sure=True)]
    assert final(rest) == [] and not any(f.endpoint for f in rest)
    ahead = torch.cat([silence[:17], logits_of("a")])
    again = words.push(logits_of("cat"), ahead, nearly_sure=True)
    assert not any(f.endpoint for f in again)


def test_a_language_model_decides_between_what_sounds_alike(character_search):
    logits = confuse(logits_of("the dog sat"), 4, "l")  # "the log sat", a little rather
    assert final(pushed(opened(), logits)) == ["the", "log", "sat"]
    assert final(pushed(opened(character_search), logits)) == ["the", "dog", "sat"]


def test_the_language_model_goes_on_from_words_that_are_final(word_search):
    # "on the mat" and "on the log" are known; "a dog", never "a log".
    config = {"settle_seconds": 0.02}
    logits = confuse(logits_of("and a log"), 6, "d", by=-1.0)
    found = pushed(opened(word_search, **config), logits)
    assert final(found) == ["and", "a", "dog"]
    alone = pushed(opened(word_search, **config), logits[18:])  # nothing stands before it
    assert final(alone) == ["log"]


@pytest.mark.parametrize("size", [1, 16, 50])
def test_clear_speech_is_read_as_in_one_piece(character_search, word_search, size):
    for search in (character_search, word_search):
        for text in TEXTS:
            logits = logits_of(text)
            whole = search.decode(logits[None], torch.tensor([len(logits)]))[0].text
            assert " ".join(final(pushed(opened(search), logits, size))) == whole == text


def test_what_the_beam_does_not_agree_on_waits_but_not_for_long(character_search):
    logits = torch.cat([confuse(logits_of("the mat "), 4, "c", by=0.0), logits_of("on the log")])
    waits = []
    for settle in (0.1, 10.0):
        words = opened(character_search, settle_seconds=settle)
        for frame in range(len(logits)):
            found = words.push(logits[frame : frame + 1], logits[:0])
            if any(len(f.final) and f.final[-1]["word"] in ("mat", "cat") for f in found):
                waits.append(frame - 22)  # the frame of the boundary after it
                break
    assert waits[0] <= 6
    assert len(waits) == 1 or waits[1] > waits[0]


def test_an_unlikely_reading_is_not_waited_for(character_search, monkeypatch):
    def first_frame(likely: float) -> int:
        monkeypatch.setattr(stream_words, "LIKELY", likely)
        words = opened(character_search, settle_seconds=10.0)
        logits = torch.cat(
            [confuse(logits_of("the mat "), 4, "c", by=-4.0), logits_of("on the log on the mat")]
        )
        for frame in range(len(logits)):
            found = words.push(logits[frame : frame + 1], logits[:0])
            if any(word["word"] == "mat" for f in found for word in f.final):
                return frame
        return len(logits)

    # The boundary is frame 22; "cat" is 4 nats less likely, less what the language model adds.
    assert first_frame(1.0) <= 23 < first_frame(25.0)


def test_scores_are_probabilities_where_the_model_was_calibrated():
    score_map = ScoreMap(temperature=2.0, offset=-1.0)
    words = StreamWords(
        VOCABULARY, None, frame_seconds=FRAME, config=WordsConfig(), score_map=score_map
    )
    plain = pushed(opened(), logits_of("the", sure=8.0))[-1].final[0]["score"]
    mapped = pushed(words, logits_of("the", sure=8.0))[-1].final[0]["score"]
    assert mapped != plain
    assert 0.0 < mapped < 1.0
