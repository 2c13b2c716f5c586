"""Streams: the words of a recording, as it comes, and never taken back."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

import speechjepa
from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference import stream as stream_module
from speechjepa.inference.align import EDGE_SECONDS
from speechjepa.inference.stream import Stream, open_stream, streaming_chunks
from speechjepa.models.encoder_stream import EncoderStream
from tests.streaming_model import write_bundle
from tests.tone_model import RATE, ToneModel, synthesize

TEXT = "abc de___________fgh ab_________ce"


def fed(stream: Stream, samples: np.ndarray, size: int) -> list:
    heard = []
    for start in range(0, len(samples), size):
        heard += stream.feed(samples[start : start + size])
    return [*heard, stream.finish()]


def words(heard: list) -> list[str]:
    return [word["word"] for h in heard for word in h.final]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return speechjepa.load(write_bundle(tmp_path_factory.mktemp("small")))


def noise(seconds: float) -> np.ndarray:
    samples = torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(3))
    return (samples * (0.02 + 0.1 * torch.sin(torch.arange(len(samples)) / 3000) ** 2)).numpy()


@pytest.mark.parametrize("size", [10**6, 5120, 777])
@pytest.mark.parametrize("frames_per_hop", [1, 2])
def test_a_model_that_cannot_stream_hears_the_words_all_the_same(size, frames_per_hop):
    model = ToneModel(frames_per_hop=frames_per_hop)
    heard = fed(open_stream(model), synthesize(TEXT), size)
    assert words(heard) == ["abc", "de", "fgh", "ab", "ce"]
    ends = [" ".join(w["word"] for w in h.final) for h in heard if h.endpoint]
    assert len(ends) == 3


def test_words_are_where_they_were_said_and_follow_each_other():
    heard = fed(open_stream(ToneModel()), synthesize(TEXT), 4000)
    placed = [word for h in heard for word in h.final]
    # 6 frames of 20 ms a character: "abc" starts at 0, "de" after three letters and a space; a
    # word reaches a little beyond its symbols.
    assert [w["start"] for w in placed[:2]] == [0.0, pytest.approx(0.48 - EDGE_SECONDS)]
    assert placed[0]["end"] == pytest.approx(0.32 + EDGE_SECONDS, abs=0.021)
    assert placed[2]["start"] == pytest.approx(0.72 + 1.1 - EDGE_SECONDS, abs=0.001)
    for before, after in zip(placed, placed[1:], strict=False):
        assert before["start"] < before["end"] <= after["start"]
    assert all(0.9 < w["score"] <= 1.0 for w in placed)


def test_partial_words_come_before_they_are_final():
    heard = fed(open_stream(ToneModel()), synthesize(TEXT), 1600)
    first_partial = next(h.seconds for h in heard if "abc" in h.partial_text)
    first_final = next(h.seconds for h in heard if "abc" in h.text)
    assert first_partial < first_final
    assert str(next(h for h in heard if "abc" in h.text)).startswith("abc")
    seconds = [h.seconds for h in heard]
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(len(synthesize(TEXT)) / RATE)


def test_a_window_stays_bounded_however_long_someone_speaks():
    model = ToneModel()
    waveform = synthesize("abc de fgh " * 20)
    assert len(waveform) > 20 * RATE
    heard = fed(open_stream(model), waveform, 3000)
    assert words(heard) == ["abc", "de", "fgh"] * 20
    assert max(model.window_lengths) <= 8.5 * RATE


def test_speech_without_a_boundary_is_parted_in_the_end():
    heard = fed(open_stream(ToneModel()), synthesize("abcdefgh" * 20), 8000)
    assert "".join(words(heard)) == "abcdefgh" * 20
    assert len(words(heard)) == 2  # 19.2 s without a space


def test_silence_gives_no_words_and_no_endpoints():
    heard = fed(open_stream(ToneModel()), np.zeros(5 * RATE, np.float32), 1000)
    assert words(heard) == []
    assert [h.endpoint for h in heard] == [False] * (len(heard) - 1) + [True]


def test_a_model_that_cannot_stream_says_so_once(caplog):
    stream_module._say_that_windows_are_heard_again.cache_clear()
    with caplog.at_level(logging.INFO):
        open_stream(ToneModel())
        open_stream(ToneModel())
    assert sum("not trained to stream" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("size", [10**6, 5120, 1237])
def test_a_stream_is_the_best_path_of_the_whole_under_the_same_chunks(small, size):
    waveform = noise(6.0)
    chunks = streaming_chunks(small, 0.32)
    output = small.encoder.encode_in_chunks(
        torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]), chunks
    )
    logits = small.bundle.ctc.head_logits(output.features)
    path = logits[0].argmax(dim=-1).tolist()
    heard = fed(small.stream(vad="none", look_ahead_seconds=0.0), waveform, size)
    text = small.vocabulary.decode_ctc(path)
    assert "".join(words(heard)) == text.replace(" ", "") != ""


def test_nothing_is_encoded_twice_without_a_look_ahead(small, monkeypatch):
    frames = []
    step = EncoderStream._step
    monkeypatch.setattr(
        EncoderStream, "_step", lambda self, n: (frames.append(n), step(self, n))[1]
    )
    fed(small.stream(vad="none", look_ahead_seconds=0.0), noise(4.0), 3333)
    assert sum(frames) == 100  # 25 a second
    assert set(frames) == {8, 4}


@pytest.mark.parametrize("ahead", [0.0, 0.08, 0.4])
def test_final_words_do_not_depend_on_how_the_samples_are_cut(small, ahead):
    waveform = noise(5.0)
    one, other = (
        [
            w
            for h in fed(small.stream(vad="none", look_ahead_seconds=ahead), waveform, size)
            for w in h.final
        ]
        for size in (10**6, 499)
    )
    assert [w["word"] for w in one] == [w["word"] for w in other]
    for ours, theirs in zip(one, other, strict=True):
        assert ours["start"] == theirs["start"] and ours["end"] == theirs["end"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-3)


def test_words_come_as_much_later_as_a_chunk_looks_ahead(small):
    waveform = noise(4.0)
    hop, front_end = small.hop, small.encoder.feature_encoder.look_ahead
    for seconds, frames in ((0.0, 0), (0.16, 4), (None, 4)):
        heard = small.stream(vad="none", look_ahead_seconds=seconds).feed(waveform)
        assert heard[0].seconds == pytest.approx(((8 + frames) * hop + front_end) / RATE)
        assert heard[1].seconds - heard[0].seconds == pytest.approx(0.32)


def test_what_a_stream_keeps_does_not_grow(small):
    stream = small.stream(vad="none")
    kept = []
    for _ in range(10):
        stream.feed(noise(2.0))
        kept.append(len(stream._words._logits))
    assert max(kept) < 12 * 50 + 20
    assert len(stream._words._context) <= 5


def test_a_tensor_is_as_good_as_an_array_and_a_buffer_may_be_used_again(small):
    waveform = noise(2.0)
    expected = words(fed(small.stream(vad="none"), waveform, 1000))
    stream, buffer, heard = small.stream(vad="none"), torch.zeros(1000), []
    for start in range(0, len(waveform), 1000):
        buffer[:] = torch.from_numpy(waveform[start : start + 1000])
        heard += stream.feed(buffer)
    assert words([*heard, stream.finish()]) == expected


def test_bad_samples_and_settings_are_refused_with_what_is_wrong(small):
    stream = small.stream(vad="none")
    with pytest.raises(ModelError, match=r"\(S,\) float32"):
        stream.feed(np.zeros((2, 3), np.float32))
    with pytest.raises(ModelError, match="int16"):
        stream.feed(np.zeros(3, np.int16))
    with pytest.raises(ModelError, match="NaN"):
        stream.feed(np.array([0.0, np.nan], np.float32))
    stream.feed(np.zeros(0, np.float32))
    stream.finish()
    with pytest.raises(ModelError, match="finished"):
        stream.feed(np.zeros(3, np.float32))
    with pytest.raises(ConfigError, match="between 0.16 and 1.28"):
        small.stream(chunk_seconds=3.0)
    with pytest.raises(ConfigError, match="between 0 and 1, but is 2.0"):
        small.stream(look_ahead_seconds=2.0)
    with pytest.raises(ConfigError, match="fine-tuned with `streaming`"):
        open_stream(ToneModel(), look_ahead_seconds=0.16)
    with pytest.raises(ModelError, match="does not transcribe 'swh'"):
        small.stream("swh")
    with pytest.raises(ModelError, match="no language model"):
        small.stream(decoder="beam")
    with pytest.raises(ConfigError, match="decoder"):
        small.stream(decoder="best")


def test_arrays_of_any_layout_are_taken_and_nothing_else(small):
    samples = np.linspace(-0.5, 0.5, 8000, dtype=np.float32)
    alike = [
        samples[::-1][::-1],
        samples.astype(">f4"),
        np.frombuffer(samples.tobytes(), np.float32),
        torch.from_numpy(samples).requires_grad_(),
    ]
    stream = small.stream()
    taken = [stream._check(given) for given in (samples, *alike)]
    assert all(torch.equal(taken[0], other) for other in taken[1:])
    for wrong in (None, "speech", [1, 2]):
        with pytest.raises(ModelError, match="must be \\(S,\\) float32"):
            stream.feed(wrong)


def test_a_detector_that_there_is_not_is_refused(small):
    with pytest.raises(ConfigError, match="`vad` must be silero, none or auto, but is 'Silero'"):
        small.stream(vad="Silero")
    with pytest.raises(ConfigError, match="`vad` must be one of .* but is 'foo'"):
        small.transcribe("a.wav", vad="foo")


def test_only_what_a_detector_let_through_is_speech_at_any_level(small):
    def least_level(vad):
        stream = small.stream(vad=vad)
        return float(stream._source._stream._front_end.statistics[0, 0, 0])

    usual = float(small.encoder.feature_encoder.log_mel.running.peak)
    assert least_level("none") == pytest.approx(usual)
    assert least_level("silero") < usual - 100
