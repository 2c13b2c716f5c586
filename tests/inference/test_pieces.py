"""The speech of a long recording is heard again in short pieces."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechjepa.inference.model import SpeechModel
from speechjepa.inference.pieces import PieceConfig, _Pieces, hear_pieces
from speechjepa.inference.stitch import Stretch, encode_batch
from speechjepa.inference.transcribe import TranscribeConfig, iter_segments
from speechjepa.models.bundle import Bundle, build_encoder
from speechjepa.models.ctc import CtcModel
from speechjepa.models.speech_encoder import SpeechEncoderConfig
from tests.tone_model import HOP, RATE, VOCABULARY, ToneModel, synthesize

UTTERANCE_SECONDS = 1.0
PIECES = PieceConfig.of_utterances(UTTERANCE_SECONDS)
WINDOWS = {"window_seconds": 6.0, "overlap_seconds": 2.0}

# No letter beside itself: among equal ones the alignment has several best paths.
words = st.sampled_from(["abc", "de", "fgaf", "bd", "cegbc", "g"])
pauses = st.sampled_from(["", "", "___", "_" * 6, "_" * 14])
speech = st.lists(st.tuples(pauses, words), min_size=1, max_size=25)


class ShyModel(ToneModel):
    """Hears tones, but takes every character for "h" in a waveform longer than it is used to.

    Heard alone, a waveform has no word boundary before its first word or after its last one, as
    the transcripts of utterances have none.
    """

    utterance_seconds = UTTERANCE_SECONDS

    def logits(self, waveform, lengths):
        logits, num_frames = super().logits(waveform, lengths)
        for row, length in enumerate(lengths.tolist()):
            symbols = logits[row].argmax(dim=-1)
            if length > 3.2 * UTTERANCE_SECONDS * RATE:
                symbols[symbols > 1] = VOCABULARY.symbols.index("h")
            else:
                (spoken,) = torch.where(symbols > 1)
                if len(spoken):
                    symbols[: spoken[0]] = symbols[spoken[-1] :][1:] = 0
            logits[row] = 10.0 * torch.nn.functional.one_hot(symbols, len(VOCABULARY))
        return logits, num_frames


def say(parts):
    script = " ".join(pause + word for pause, word in parts)
    return synthesize(script), " ".join(word for _, word in parts)


def segments_of(model, waveform, **options):
    config = TranscribeConfig(word_timestamps=True, **WINDOWS, **options)
    blocks = np.array_split(waveform, 1 + len(waveform) // 30000)
    return list(iter_segments(model, blocks, config))


def text_of(segments):
    return " ".join(segment["text"] for segment in segments)


def words_of(segments):
    return [word for segment in segments for word in segment["words"]]


@settings(max_examples=25, deadline=None)
@given(speech, st.integers(0, 3 * HOP), st.sampled_from([1, 2]), st.integers(1, 3))
def test_no_word_is_lost_or_doubled_where_pieces_meet(parts, silence, per_hop, batch_size):
    waveform, said = say(parts)
    waveform = np.pad(waveform, (silence, 2 * RATE))
    model = ShyModel(frames_per_hop=per_hop)
    found = words_of(segments_of(model, waveform, batch_size=batch_size))
    assert [word["word"] for word in found] == said.split()
    expected = words_of(segments_of(ToneModel(frames_per_hop=per_hop), waveform))
    times = [[(word["start"], word["end"]) for word in side] for side in (found, expected)]
    assert times[0] == times[1]
    assert all(end <= len(waveform) / RATE for _, end in times[0])


def test_without_a_second_pass_the_long_windows_decide():
    waveform, _ = say([("___", "abc")] * 12)
    assert set(text_of(segments_of(ShyModel(), waveform, second_pass=False))) == {"h", " "}


@pytest.mark.parametrize("utterance_seconds", [None, 4.0])
def test_a_model_of_long_or_unknown_utterances_hears_the_windows_only(utterance_seconds):
    waveform, _ = say([("___", "abc")] * 12)
    model = ShyModel()
    model.utterance_seconds = utterance_seconds
    assert set(text_of(segments_of(model, waveform))) == {"h", " "}


@pytest.mark.parametrize(("num_samples", "is_one"), [(2 * RATE, True), (2 * RATE + 1, False)])
def test_a_recording_as_short_as_a_piece_is_heard_once(num_samples, is_one):
    waveform, _ = say([("___", "abc")] * 2)
    model = ShyModel()
    segments_of(model, np.pad(waveform, (0, num_samples - len(waveform))))
    assert (model.window_lengths == [num_samples]) is is_one


def test_what_the_windows_hear_as_noise_is_not_heard_again():
    rng = np.random.default_rng(0)
    noise = (1e-4 * rng.standard_normal(40 * RATE)).astype(np.float32)
    model = ShyModel()
    assert segments_of(model, noise) == []
    assert min(model.window_lengths) == 6 * RATE
    speech_at = 20 * RATE
    said, text = say([("", "abc")])
    noise[speech_at : speech_at + len(said)] += said
    assert text_of(segments_of(model, noise)) == text
    pieces = [length for length in model.window_lengths if length < 6 * RATE]
    assert len(pieces) == 1
    assert pieces[0] <= len(said) + 0.4 * RATE


def test_a_piece_that_falls_silent_keeps_what_the_window_heard():
    class ShyOfPieces(ToneModel):
        utterance_seconds = UTTERANCE_SECONDS

        def logits(self, waveform, lengths):
            logits, num_frames = super().logits(waveform, lengths)
            return (logits if waveform.shape[1] > 3 * RATE else 0 * logits), num_frames

    waveform, said = say([("___", "abc")] * 12)
    assert text_of(segments_of(ShyOfPieces(), waveform)) == said


def test_pieces_do_not_depend_on_how_the_stream_is_cut():
    waveform, _ = say([("___", "abc"), ("", "de"), ("_" * 8, "fg"), ("", "aabb")] * 6)
    (logits,) = encode_batch(ToneModel(), [waveform])
    results = []
    for size in (len(logits), 200, 37):
        stretches = [
            Stretch(
                end=min(len(waveform), (at + size) * HOP),
                samples=waveform[at * HOP : (at + size) * HOP],
                logits=logits[at : at + size],
            )
            for at in range(0, len(logits), size)
        ]
        parts = hear_pieces(ShyModel(), stretches, PIECES, batch_samples=100_000)
        results.append(torch.cat([part for _, part in parts]))
    assert len(results[0]) == len(logits)
    assert all(torch.equal(result, results[0]) for result in results)


def test_memory_is_bounded_by_the_longest_piece_and_a_stretch():
    longest = round((PIECES.max_seconds + 2 * PIECES.long_pause_seconds) * RATE)
    for said in ("abcdefg", "abc _____", "_" * 40 + "a", "_"):
        samples = synthesize(said)[: 40 * HOP]
        samples = np.pad(samples, (0, 40 * HOP - len(samples)))
        (logits,) = encode_batch(ToneModel(), [samples])
        pieces = _Pieces(ToneModel(), PIECES, 100_000)
        released = 0
        for number in range(1, 200):
            released += len(pieces.push(Stretch(number * len(samples), samples, logits)))
            assert len(pieces._samples) <= longest + 2 * len(samples)
            assert len(pieces._logits) * HOP <= longest + 2 * len(samples)
        assert released + len(pieces.finish()) == 199 * len(logits)


class ToneHead(SpeechModel):
    """The real encoder with random weights; its head is fitted to hear tones."""

    utterance_seconds = UTTERANCE_SECONDS
    vad = "none"


@pytest.fixture(scope="module")
def tone_head():
    torch.manual_seed(0)
    config = SpeechEncoderConfig(width=128, num_layers=1, num_heads=2, ffn_width=128, kernel_size=3)
    encoder = build_encoder(config).eval()
    rng = np.random.default_rng(0)
    features, symbols = [], []
    for _ in range(60):
        parts = [("__", "".join(rng.choice(list("abcdefg"), rng.integers(1, 5))))] * 3
        waveform = torch.from_numpy(say(parts)[0])[None]
        with torch.no_grad():
            heard = encoder(waveform, torch.tensor([waveform.shape[1]])).features[0]
        target = ToneModel().logits(waveform, torch.tensor([waveform.shape[1]]))[0][0]
        count = min(len(heard), len(target))
        features.append(heard[:count])
        symbols.append(target[:count])
    x = torch.nn.functional.pad(torch.cat(features), (0, 1), value=1.0).double()  # (T, D + 1)
    ridge = 1e-3 * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(x.T @ x + ridge, x.T @ torch.cat(symbols).double()).float()
    ctc = CtcModel(encoder, len(VOCABULARY))
    ctc.head.weight.data = weights[:-1].T.contiguous()
    ctc.head.bias.data = weights[-1]
    return ToneHead(Bundle(encoder=encoder, ctc=ctc, vocabulary=VOCABULARY))


def test_a_joined_recording_is_its_utterances_one_by_one(tone_head):
    rng = np.random.default_rng(1)
    utterances = [
        synthesize("_" + "".join(rng.choice(list("abcdefg"), 6)) + "_") for _ in range(12)
    ]
    alone = [text_of(segments_of(tone_head, utterance)) for utterance in utterances]
    assert all(alone)
    pause = np.zeros(RATE, np.float32)  # words part there, heard or not
    joined = np.concatenate([part for utterance in utterances for part in (utterance, pause)])
    assert text_of(segments_of(tone_head, joined)) == " ".join(alone)
