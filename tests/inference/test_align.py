import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechjepa.errors import DataError
from speechjepa.inference.align import EDGE_SECONDS, align_tokens, align_words, frames_needed
from speechjepa.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(["<blank>", "|", "a", "b", "c"])


def logits_of(path, confidence=8.0):
    """(T, V) logits whose best path is `path`, one symbol per frame, '-' = blank."""
    ids = [0 if symbol == "-" else VOCABULARY.symbols.index(symbol) for symbol in path]
    return confidence * torch.nn.functional.one_hot(torch.tensor(ids), len(VOCABULARY)).float()


def times_of(path, text, frame_seconds=0.1):
    words = align_words(logits_of(path), text, VOCABULARY, frame_seconds=frame_seconds)
    return [(word.start, word.end) for word in words]


def test_words_are_found_where_they_were_said_with_a_little_around_them():
    words = align_words(logits_of("--aab-|--cc-"), "ab c", VOCABULARY, frame_seconds=0.1)
    assert [word.word for word in words] == ["ab", "c"]
    assert [(word.start, word.end) for word in words] == [
        (pytest.approx(0.2 - EDGE_SECONDS), pytest.approx(0.5 + EDGE_SECONDS)),
        (pytest.approx(0.9 - EDGE_SECONDS), pytest.approx(1.1 + EDGE_SECONDS)),
    ]
    assert all(0.99 < word.score <= 1 for word in words)


def test_words_close_together_share_what_is_between_them():
    assert times_of("a|b", "a b", 0.02) == [
        (0.0, pytest.approx(0.03)),
        (pytest.approx(0.03), pytest.approx(0.06)),
    ]
    first, second = times_of("-a---|---b-", "a b", 0.01)
    assert first == (0.0, pytest.approx(0.04))
    assert second == (pytest.approx(0.07), pytest.approx(0.11))


def test_characters_divide_their_word_without_a_gap():
    (word,) = align_words(logits_of("--aa-b-bc-"), "abbc", VOCABULARY, frame_seconds=0.1)
    assert [one.character for one in word.characters] == list("abbc")
    starts = [one.start for one in word.characters]
    assert starts == pytest.approx([0.2 - EDGE_SECONDS, 0.5, 0.7, 0.8])
    assert [one.end for one in word.characters] == [*starts[1:], word.end]
    shown = word.as_dict(lambda seconds: round(seconds, 3), characters=True)
    assert shown["characters"][1] == {
        **{"character": "b", "start": 0.5, "end": 0.7},
        "score": pytest.approx(0.999, abs=1e-3),
    }
    assert "characters" not in word.as_dict(float, characters=False)


def test_the_score_is_the_mean_posterior_of_the_characters():
    logits = torch.log(torch.tensor([[0.05, 0.05, 0.8, 0.05, 0.05], [0.1, 0.1, 0.1, 0.6, 0.1]]))
    (word,) = align_words(logits, "ab", VOCABULARY, frame_seconds=0.02)
    assert word.score == pytest.approx(0.7, abs=1e-5)


def test_a_text_that_was_not_said_scores_low():
    (said,) = align_words(logits_of("-aabb-"), "ab", VOCABULARY, frame_seconds=0.02)
    (other,) = align_words(logits_of("-aabb-"), "cc", VOCABULARY, frame_seconds=0.02)
    assert other.score < 0.1 < 0.9 < said.score


def test_repeated_characters_are_two_spans():
    spans = align_tokens(logits_of("aa-aa"), [2, 2])
    assert [(span.first_frame, span.end_frame) for span in spans] == [(0, 2), (3, 5)]


def test_repeats_need_a_frame_between_them():
    assert frames_needed([2, 2, 3, 3, 3]) == 8
    assert frames_needed([]) == 0


def test_an_empty_text_has_no_words():
    assert align_words(logits_of("---"), "", VOCABULARY, frame_seconds=0.02) == []
    assert align_tokens(logits_of("---"), []) == []


def test_a_text_too_long_for_the_audio_has_no_times():
    assert align_words(logits_of("aab"), "aab", VOCABULARY, frame_seconds=0.02) is None
    with pytest.raises(DataError, match="at least 4 frames, but the audio gives 3"):
        align_tokens(logits_of("aab"), [2, 2, 3])


def test_a_character_outside_the_vocabulary_is_named():
    with pytest.raises(DataError, match="'z'"):
        align_words(logits_of("aab"), "z", VOCABULARY, frame_seconds=0.02)


@settings(max_examples=60, deadline=None)
@given(st.text("abc ", max_size=12), st.integers(1, 40), st.integers(0, 5))
def test_times_rise_and_stay_inside_the_audio(text, num_frames, seed):
    text = " ".join(text.split())
    logits = torch.randn(num_frames, len(VOCABULARY), generator=torch.Generator().manual_seed(seed))
    end_of_audio = 3.0 + num_frames * 0.02 - 0.013
    words = align_words(
        logits, text, VOCABULARY, frame_seconds=0.02, offset=3.0, end_of_audio=end_of_audio
    )
    if frames_needed(VOCABULARY.encode(text)) > num_frames:
        assert words is None
        return
    assert [word.word for word in words] == text.split()
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(3.0 <= time <= end_of_audio for time in times)
    assert all(0 <= word.score <= 1 for word in words)
    for word in words:
        bounds = [time for one in word.characters for time in (one.start, one.end)]
        assert bounds == sorted(bounds)
        assert (bounds[0], bounds[-1]) == (word.start, word.end)
