import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechjepa.audio.voice import FRAME, RATE
from speechjepa.errors import ConfigError
from speechjepa.inference import encoding as module
from speechjepa.inference.chunks import ChunkConfig, speech_chunks
from speechjepa.inference.transcribe import TranscribeConfig, iter_segments
from speechjepa.inference.voiced import encode_chunks
from tests.synthetic_speech import say_syllables
from tests.tone_model import HOP, ToneModel, synthesize

FIXTURE = HealthCheck.function_scoped_fixture
words = st.text("abcdefgh", min_size=1, max_size=6)
pauses = st.sampled_from(["", "", "_____", "________", "_" * 45])
speech = st.lists(st.tuples(pauses, words), min_size=1, max_size=25)


class ToneDetector:
    """Takes what is not silent for speech, and the silence inside a word too."""

    def __init__(self):
        self.pending = np.zeros(0, np.float32)

    def push(self, samples):
        self.pending = np.concatenate([self.pending, samples])
        count = len(self.pending) // FRAME
        frames, self.pending = np.split(self.pending, [count * FRAME])
        return (np.abs(frames.reshape(count, FRAME)).max(axis=1, initial=0) > 0.1).astype(float)

    def finish(self):
        return self.push(np.zeros(-len(self.pending) % FRAME, np.float32))


def chunks_of(waveform, config, *, hop=HOP, block=RATE):
    blocks = np.split(waveform, range(block, len(waveform), block))
    return list(speech_chunks(blocks, ToneDetector(), config, hop=hop, rate=RATE))


@pytest.fixture
def hears_tones(monkeypatch):
    monkeypatch.setattr(module, "make_detector", lambda name: ToneDetector())


SHORT = {
    "windows": ChunkConfig.of_windows(2.0, 0.8),
    "utterances": ChunkConfig.of_utterances(1.0),
}


@settings(max_examples=25, deadline=None)
@given(speech, st.integers(0, 3 * HOP), st.integers(500, 50000), st.sampled_from([320, 640]))
@pytest.mark.parametrize("name", SHORT)
def test_chunks_tile_the_recording_and_lose_no_speech(name, parts, silence, block, hop):
    script = " ".join(pause + word for pause, word in parts)
    waveform = np.pad(synthesize(script), (silence, 0))
    chunks = chunks_of(waveform, SHORT[name], hop=hop, block=block)
    assert [chunk.start for chunk in chunks] == [0] + [chunk.end for chunk in chunks[:-1]]
    assert chunks[-1].end == len(waveform)
    assert all(chunk.end % hop == 0 for chunk in chunks[:-1])
    for chunk in chunks:
        if chunk.samples is None:
            assert not waveform[chunk.start : chunk.end].any()
            continue
        heard_to = chunk.heard_from + len(chunk.samples)
        assert chunk.heard_from <= chunk.start and chunk.end <= heard_to
        np.testing.assert_array_equal(chunk.samples, waveform[chunk.heard_from : heard_to])
        longest = SHORT[name].max_seconds + SHORT[name].long_pause_seconds  # and its margins
        assert chunk.end - chunk.start <= longest * RATE + 2 * FRAME + hop


@settings(max_examples=20, deadline=None)
@given(speech, st.integers(500, 50000))
@pytest.mark.parametrize("name", SHORT)
def test_chunks_do_not_depend_on_how_the_stream_is_cut(name, parts, block):
    waveform = synthesize(" ".join(pause + word for pause, word in parts))
    edges = [
        [(chunk.start, chunk.end, chunk.heard_from) for chunk in found if chunk.samples is not None]
        for found in (
            chunks_of(waveform, SHORT[name], block=block),
            chunks_of(waveform, SHORT[name], block=len(waveform)),
        )
    ]
    assert edges[0] == edges[1]


@settings(max_examples=30, deadline=None, suppress_health_check=[FIXTURE])
@given(speech, st.sampled_from([1, 2]), st.integers(1, 4), st.sampled_from([None, 0.5]))
def test_no_word_is_lost_or_doubled_where_chunks_meet(
    hears_tones, parts, per_hop, batch_size, utterance_seconds
):
    waveform = synthesize(" ".join(pause + word for pause, word in parts))
    model = ToneModel(frames_per_hop=per_hop)
    model.utterance_seconds = utterance_seconds
    options = {"window_seconds": 2.0, "overlap_seconds": 0.8, "batch_size": batch_size}
    config = TranscribeConfig(vad="silero", word_timestamps=True, **options)
    found = list(iter_segments(model, [waveform], config))
    whole = list(iter_segments(ToneModel(), [waveform], TranscribeConfig(word_timestamps=True)))
    assert " ".join(s["text"] for s in found) == " ".join(word for _, word in parts)
    times, expected = (
        np.array([(w["start"], w["end"]) for s in segments for w in s["words"]])
        for segments in (found, whole)
    )
    np.testing.assert_allclose(times, expected, atol=0.045)


def test_speech_without_a_pause_is_heard_beyond_its_cuts():
    waveform = synthesize("abcdefgh" * 12)
    chunks = chunks_of(waveform, SHORT["windows"])
    inner = [c for c in chunks if c.samples is not None][1:-1]
    assert len(inner) >= 3
    for chunk in inner:
        assert chunk.start - chunk.heard_from == pytest.approx(0.4 * RATE, abs=HOP)
        beyond = chunk.heard_from + len(chunk.samples) - chunk.end
        assert beyond == pytest.approx(0.4 * RATE + HOP, abs=HOP)


class WordModel(ToneModel):
    """Hears letters and no word boundary, as a model of single words does."""

    def logits(self, waveform, lengths):
        logits, counts = super().logits(waveform, lengths)
        logits[:, :, self.vocabulary.word_boundary_id] = -1.0
        return logits, counts


@pytest.mark.parametrize("model", [WordModel(), ToneModel()])
@pytest.mark.parametrize(("pause", "are_parted"), [("__", True), ("", False)])
def test_chunks_that_meet_in_a_pause_are_parted(model, pause, are_parted):
    chunks = chunks_of(synthesize(pause.join(["abcdef"] * 9)), SHORT["utterances"])
    assert len(chunks) >= 3
    assert all(chunk.samples is not None for chunk in chunks)
    logits = torch.cat(encode_chunks(model, chunks, batch_samples=30 * RATE))
    words = model.vocabulary.decode_ctc(logits.argmax(dim=-1).tolist()).split()
    assert "".join(words) == "abcdef" * 9
    assert len(words) == (len(chunks) if are_parted else 1)


def test_where_chunks_meet_at_a_word_boundary_that_was_heard_nothing_is_added():
    waveform = synthesize("abcdef__ " * 9)
    chunks = chunks_of(waveform, SHORT["utterances"])
    assert all(chunk.parts_words for chunk in chunks[1:])
    found = torch.cat(encode_chunks(ToneModel(), chunks, batch_samples=30 * RATE))
    whole, _ = ToneModel().logits(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    assert torch.equal(found.argmax(dim=-1), whole[0].argmax(dim=-1))


def test_silence_is_not_encoded():
    model = ToneModel()
    waveform = synthesize("abc" + "_" * 3000 + "def")
    config = ChunkConfig.of_windows(30.0, 4.0)
    chunks = chunks_of(waveform, config)
    encode_chunks(model, chunks, batch_samples=30 * RATE)
    assert sum(model.window_lengths) < 3 * RATE
    assert len(waveform) > 300 * RATE


def test_a_recording_that_fits_is_encoded_as_it_is():
    waveform = synthesize("abc" + "_" * 30 + "def" + "_" * 20)
    (chunk,) = chunks_of(waveform, ChunkConfig.of_windows(30.0, 4.0))
    np.testing.assert_array_equal(chunk.samples, waveform)


def test_memory_is_bounded_by_the_longest_chunk_and_a_block():
    config = ChunkConfig.of_windows(10.0, 2.0)
    one = synthesize("abc def" * 10 + "_" * 10)
    num_pushed = 0

    def blocks():
        nonlocal num_pushed
        for _ in range(60):
            num_pushed += len(one)
            yield one

    for chunk in speech_chunks(blocks(), ToneDetector(), config, hop=HOP, rate=RATE):
        assert num_pushed - chunk.end < 20 * RATE + len(one)


def test_a_batch_is_of_like_lengths_and_results_keep_their_order():
    model = ToneModel()
    scripts = ["abcdefgh" * 4, "a", "bcd", "cdefgh" * 4, "h"]
    config = ChunkConfig.of_windows(30.0, 4.0)
    chunks = [chunk for s in scripts for chunk in chunks_of(synthesize(s), config)]
    found = encode_chunks(model, chunks, batch_samples=8 * RATE)
    assert model.window_lengths == sorted(model.window_lengths, reverse=True)
    symbols = [logits.argmax(dim=-1).unique_consecutive() for logits in found]
    texts = ["".join(model.vocabulary.symbols[i] for i in s.tolist() if i) for s in symbols]
    assert texts == scripts


def test_the_first_chunk_comes_before_the_rest_is_read():
    num_read = 0

    def blocks():
        nonlocal num_read
        while True:
            num_read += 1
            yield synthesize("abc def" + "_" * 15)

    config = TranscribeConfig(vad="energy", window_seconds=4.0, overlap_seconds=0.8)
    stream = iter_segments(ToneModel(), blocks(), config)
    assert [next(stream)["text"] for _ in range(3)] == ["abc def"] * 3
    assert num_read < 12


class Babbler(ToneModel):
    """Hears words in everything, as weak models do."""

    vad = "silero"

    def logits(self, waveform, lengths):
        self.window_lengths += lengths.tolist()
        logits = torch.zeros(len(waveform), int(lengths.max()) // HOP, len(self.vocabulary))
        logits[:, :, 2:] = torch.randn(logits[:, :, 2:].shape) + 5
        return logits, lengths // HOP


@pytest.mark.parametrize("seconds", [0.02, 0.5, 40])
@pytest.mark.parametrize("level", [0.0, 0.05])
def test_a_model_that_hears_words_in_everything_has_none_for_silence_and_noise(seconds, level):
    noise = level * np.random.default_rng(0).standard_normal(round(seconds * RATE))
    model = Babbler()
    assert list(iter_segments(model, [noise.astype(np.float32)], TranscribeConfig())) == []
    assert model.window_lengths == []
    assert list(iter_segments(model, [noise.astype(np.float32)], TranscribeConfig(vad="none")))


def test_words_are_where_the_speech_is_and_nowhere_else():
    silence = np.zeros(40 * RATE, np.float32)
    waveform = np.concatenate([silence, say_syllables(3.0), silence])
    segments = list(iter_segments(Babbler(), [waveform], TranscribeConfig()))
    assert 39 < segments[0]["start"] < 40.5
    assert 42.5 < segments[-1]["end"] < 44


def test_another_sample_rate_is_refused():
    with pytest.raises(ConfigError, match="16000 Hz only, but the model takes 8000"):
        list(speech_chunks([], ToneDetector(), ChunkConfig.of_windows(30, 4), hop=HOP, rate=8000))
