"""The encoder on a stream gives what it gives on the whole, however the stream is cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from speechjepa.audio.features import GLOBAL_MEAN
from speechjepa.errors import ConfigError, ModelError
from speechjepa.models.encoder_stream import EncoderStream
from speechjepa.models.speech_encoder import (
    PRESETS,
    SpeechEncoder,
    SpeechEncoderConfig,
    StreamingConfig,
)
from speechjepa.nn.transformer import Chunks

SMALL = SpeechEncoderConfig(
    width=32, num_layers=3, num_heads=2, ffn_width=48, streaming=StreamingConfig()
)
CHUNKS = Chunks(4, 2)


def encoder(config: SpeechEncoderConfig = SMALL) -> SpeechEncoder:
    torch.manual_seed(0)
    network = SpeechEncoder(config).eval()
    for parameter in network.parameters():  # far enough from its start for every part to matter
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def speech(samples: int) -> torch.Tensor:
    """Noise that grows and fades, so that running statistics have something to follow."""
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(1))
    return noise * torch.exp(3 * torch.sin(torch.arange(samples) / 4000) - 4)


def streamed(network, waveform, sizes, chunks=CHUNKS, look_ahead=0) -> torch.Tensor:
    stream = EncoderStream(network, chunks, look_ahead)
    done, start = [], 0
    while start < len(waveform):
        size = sizes[len(done) % len(sizes)] if len(sizes) > 1 else sizes[0]
        done.append(stream.push(waveform[start : start + size]))
        start += size
    parts = [chunk.features for pushed in done for chunk in pushed]
    parts += [chunk.features for chunk in stream.finish()]
    return torch.cat(parts, 1)[0] if parts else torch.zeros(0, network.width)


def joined(chunks) -> torch.Tensor:
    return torch.cat([chunk.features for chunk in chunks], 1)[0]


def at_once(network, waveform, chunks=CHUNKS) -> torch.Tensor:
    output = network.encode_in_chunks(waveform[None], torch.tensor([len(waveform)]), chunks)
    return output.features[0, : int(output.lengths)]


@pytest.mark.parametrize("rate", [25, 50])
@pytest.mark.parametrize(
    "change",
    [{}, {"causal_convolution": True}, {"normalization": "global"}, {"pitch": True}],
    ids=["shipped kind", "causal", "global", "pitch"],
)
@pytest.mark.parametrize(
    "sizes", [[10**9], [5120], [1, 7, 1601, 333, 12000, 160]], ids=["whole", "even", "odd"]
)
def test_a_stream_gives_what_the_whole_gives_under_the_same_chunks(rate, change, sizes):
    network = encoder(replace(SMALL, frame_rate=rate, **change))
    waveform = speech(40123)
    whole = at_once(network, waveform)
    assert len(whole) == 40123 // network.hop
    assert (streamed(network, waveform, sizes) - whole).abs().max() < 1e-4


@pytest.mark.parametrize("pitch", [False, True])
def test_single_samples_make_the_same_stream(pitch):
    network = encoder(replace(SMALL, frame_rate=25, pitch=pitch))
    waveform = speech(6000)
    whole = at_once(network, waveform)
    assert (streamed(network, waveform, [1]) - whole).abs().max() < 1e-4


@pytest.mark.parametrize("rate", [25, 50])
@pytest.mark.parametrize("pitch", [False, True])
@pytest.mark.parametrize("samples", [0, 1, 159, 160, 319, 320, 640, 1279, 1280, 1281, 2560, 2719])
def test_streams_that_end_anywhere_have_the_frames_of_the_whole(rate, pitch, samples):
    network = encoder(replace(SMALL, frame_rate=rate, pitch=pitch))
    waveform = speech(samples)
    whole = at_once(network, waveform)[: samples // network.hop]
    heard = streamed(network, waveform, [100])
    assert len(heard) == samples // network.hop == len(whole)
    assert torch.allclose(heard, whole, atol=1e-4)


@pytest.mark.parametrize("look_ahead", [1, 3, 9, 1000])
def test_a_chunk_sees_what_it_looks_ahead_to_and_the_next_one_begins_afresh(look_ahead):
    # Chunks that remember nothing: each is what it is as the beginning of a short recording.
    network, waveform = encoder(replace(SMALL, frame_rate=25, kernel_size=1)), speech(20000)
    features, _ = network.extract_features(
        waveform[None], torch.tensor([len(waveform)]), streaming=True
    )
    expected = []
    for start in range(0, 31, 4):
        block = features[:, start : start + 4 + look_ahead]
        output = network.contextualize(
            block, torch.tensor([block.shape[1]]), chunks=Chunks(4 + look_ahead, None)
        )
        expected.append(output.features[0, :4])
    heard = streamed(network, waveform, [999], Chunks(4, 0), look_ahead)
    assert heard.shape == (31, network.width)
    assert torch.allclose(heard, torch.cat(expected), atol=1e-4)


@pytest.mark.parametrize("look_ahead", [1, 4, 7])
def test_what_was_looked_ahead_to_leaves_nothing_in_the_state(look_ahead):
    # What comes after a chunk changes its output, but not what the blocks remember of their input:
    # the first block's state is that of a stream without a look-ahead.
    network, waveform = encoder(replace(SMALL, frame_rate=25)), speech(30000)
    ahead, plain = EncoderStream(network, CHUNKS, look_ahead), EncoderStream(network, CHUNKS)
    chunks = ahead.push(waveform)
    others = plain.push(waveform)[: len(chunks)]
    plain = EncoderStream(network, CHUNKS)
    plain.push(waveform[: len(chunks) * 4 * 640 + 600])
    state, other = ahead._blocks[0], plain._blocks[0]
    assert torch.allclose(state.keys, other.keys, atol=1e-4)
    assert torch.allclose(state.values, other.values, atol=1e-4)
    assert state.frames.shape == other.frames.shape
    assert state.keys.shape[2] == 8
    assert (joined(chunks) - joined(others)).abs().max() > 1e-2
    assert all(chunk.ahead.shape[1] == look_ahead for chunk in chunks)


@pytest.mark.parametrize("sizes", [[10**9], [1, 7, 1601, 333, 12000, 160]], ids=["whole", "odd"])
@pytest.mark.parametrize("samples", [1279, 2560, 5240, 40123])
def test_looking_ahead_gives_the_same_however_the_stream_is_cut(sizes, samples):
    network, waveform = encoder(replace(SMALL, frame_rate=25)), speech(samples)
    even = streamed(network, waveform, [5120], look_ahead=3)
    odd = streamed(network, waveform, sizes, look_ahead=3)
    assert even.shape == odd.shape == (samples // 640, network.width)
    assert torch.allclose(even, odd, atol=1e-4)


def test_all_of_the_past_may_stay_visible():
    network, waveform = encoder(), speech(20000)
    chunks = Chunks(5, None)
    whole = at_once(network, waveform, chunks)
    assert (streamed(network, waveform, [999], chunks) - whole).abs().max() < 1e-4
    assert (at_once(network, waveform, Chunks(5, 1)) - whole).abs().max() > 1e-2


def test_a_chunk_comes_as_soon_as_the_look_ahead_beyond_it_was_heard():
    network = encoder(replace(SMALL, frame_rate=25))
    stream = EncoderStream(network, CHUNKS)
    needed = 4 * 640 + 600
    assert stream.push(speech(needed - 1)) == []
    assert [chunk.features.shape[1] for chunk in stream.push(torch.zeros(1))] == [4]


def test_the_state_stops_growing():
    network = encoder(replace(SMALL, frame_rate=25))
    stream = EncoderStream(network, CHUNKS)

    def held() -> int:
        tensors = [stream._features, stream._front_end._samples, *stream._front_end._inputs]
        for block in stream._blocks:
            tensors += [block.keys, block.values, block.frames]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    sizes = []
    for _ in range(12):
        stream.push(speech(16000))
        sizes.append(held())
    assert len(set(sizes[3::4])) == 1  # 25 frames a second, 4 a chunk: alike every 4 seconds


def test_the_same_sound_is_encoded_alike_after_an_hour():
    network = encoder(replace(SMALL, frame_rate=25, normalization="global"))
    waveform = speech(4 * 640 * 3)  # whole chunks: every repetition is cut alike
    stream = EncoderStream(network, CHUNKS)
    early, late = [], []
    for repetition in range(40):
        chunks = stream.push(waveform)
        early, late = (chunks if repetition == 5 else early), chunks
        if repetition == 20:
            stream._num_encoded += 25 * 3600 // 4 * 4  # as if an hour lay between
            stream._num_samples += 25 * 3600 // 4 * 4 * 640
    assert len(early) == len(late) == 3
    for before, after in zip(early, late, strict=True):
        assert torch.allclose(before.features, after.features, atol=1e-5)


def test_full_context_is_untouched_by_learning_to_stream():
    plain = encoder(replace(SMALL, streaming=None))
    able = encoder()
    able.load_state_dict(plain.state_dict(), strict=False)
    waveform, lengths = speech(16000)[None], torch.tensor([16000])
    assert torch.equal(plain(waveform, lengths).features, able(waveform, lengths).features)


def test_an_encoder_that_cannot_stream_says_what_to_do():
    with pytest.raises(ModelError, match="fine-tune it with `streaming`"):
        EncoderStream(encoder(replace(SMALL, streaming=None)), CHUNKS)


def test_chunks_follow_from_seconds_and_are_refused_beyond_what_was_trained():
    streaming = StreamingConfig(min_chunk_seconds=0.16, max_chunk_seconds=1.0, left_seconds=2.4)
    assert streaming.chunks(0.32, 25) == Chunks(8, 8)
    assert streaming.chunks(0.32, 50) == Chunks(16, 8)
    with pytest.raises(ConfigError, match="between 0.16 and 1.0"):
        streaming.chunks(2.0, 25)
    with pytest.raises(ConfigError, match="max_chunk_seconds"):
        StreamingConfig(min_chunk_seconds=1.0, max_chunk_seconds=0.5)
    assert PRESETS["tiny"].streaming is None


def test_after_a_pause_it_begins_again_but_for_the_statistics():
    network, waveform = encoder(replace(SMALL, frame_rate=25)), speech(20000)
    stream = EncoderStream(network, CHUNKS)
    whole = at_once(network, waveform)
    before = joined(stream.push(waveform) + stream.pause())
    assert torch.allclose(before, whole, atol=1e-4)  # nothing is lost at the pause
    again = joined(stream.push(waveform) + stream.finish())
    assert again.shape == whole.shape
    assert not torch.allclose(again, whole, atol=1e-3)  # another speech came before
    constant = encoder(replace(SMALL, frame_rate=25, normalization="global"))
    stream = EncoderStream(constant, CHUNKS)
    stream.push(waveform)
    stream.pause()
    again = joined(stream.push(waveform) + stream.finish())
    assert torch.allclose(again, at_once(constant, waveform), atol=1e-4)


def test_statistics_weigh_little_after_a_pause_and_stay_what_they_are():
    running = encoder().feature_encoder.log_mel.running
    mel = 3 + torch.randn(1, 900, 80, generator=torch.Generator().manual_seed(0))
    state = running(mel, running.start(1))[1]
    after = running.after_pause(state)
    assert float(state[0, 0, 2]) > 400 and float(after[0, 0, 2]) == pytest.approx(100.0)
    means = [s[0, 0, 3:83] / s[0, 0, 2] for s in (state, after)]
    assert torch.allclose(means[0], means[1], atol=1e-4)


def test_faint_speech_is_as_loud_where_all_that_comes_is_speech():
    running = encoder().feature_encoder.log_mel.running
    loud = GLOBAL_MEAN + 3 * torch.randn(1, 2000, 80, generator=torch.Generator().manual_seed(0))
    faint = loud - 9.2  # 40 dB
    click = torch.cat([loud[:, :1] + 5, faint], 1)

    def heard(mel, any_level, state=None):
        state = running.start(1, any_level=any_level) if state is None else state
        normalized, state = running(mel, state, any_level=any_level)
        return normalized[0, -100:], state

    expected = heard(loud, any_level=False)[0]
    for any_level, is_adapted in ((True, True), (False, False)):
        after = running.after_pause(heard(loud, any_level)[1])
        for mel, state in ((faint, None), (click, None), (faint, after)):
            error = (heard(mel, any_level, state)[0] - expected).abs().mean()
            assert error < 0.2 if is_adapted else error > 1
    assert torch.allclose(heard(loud, any_level=True)[0], expected, atol=1e-4)


def test_any_level_is_the_same_however_the_stream_is_cut():
    network, waveform = encoder(replace(SMALL, frame_rate=25)), 0.001 * speech(40000)
    found = []
    for size in (40000, 1601):
        stream = EncoderStream(network, CHUNKS, any_level=True)
        parts = [c for samples in waveform.split(size) for c in stream.push(samples)]
        found.append(joined(parts + stream.finish()))
        assert float(stream._front_end.statistics[0, 0, 2]) > 200  # the second of prior, and more
    assert torch.allclose(found[0], found[1], atol=1e-4)
    assert not torch.allclose(found[0], at_once(network, waveform), atol=0.1)
