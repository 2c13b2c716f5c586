"""Fine-tuning for streams: chunks are sampled, statistics fitted, and the bundle knows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

import speechjepa
from speechjepa.audio.files import read_audio
from speechjepa.data.batches import Batch
from speechjepa.errors import ConfigError
from speechjepa.models.bundle import build_encoder
from speechjepa.models.speech_encoder import StreamingConfig
from speechjepa.models.wav2vec2 import Wav2Vec2Config
from speechjepa.nn.transformer import Chunks
from speechjepa.training.augmented import encode_augmented
from speechjepa.training.config import FinetuneConfig
from speechjepa.training.streaming import as_on_a_stream, dev_error, draw_chunks, learn_to_stream
from tests.training.corpus import SMALL, make_corpus
from tests.training.test_finetune import CONFIG, run

STREAMING = StreamingConfig(full_prob=0.5)


def test_a_model_fine_tuned_for_streams_streams(tmp_path):
    train = make_corpus(tmp_path / "audio")
    folder = run(tmp_path, replace(CONFIG, streaming=STREAMING), train=train)
    model = speechjepa.load(folder)
    assert model.encoder.config.streaming == STREAMING
    best = model.bundle.results["dev_while_training"]
    assert best["cer"] > 0 and best["cer_streaming"] > 0
    assert model.bundle.training["finetune"]["finetune"]["streaming"]["full_prob"] == 0.5
    running = model.encoder.feature_encoder.log_mel.running
    assert running.mean.std() > 0.01  # of the tones of the corpus, not the constants it began with
    stream = model.stream()
    stream.feed(read_audio(train[0].audio_path))
    stream.finish()
    metrics = (tmp_path / "run" / "metrics.csv").read_text()
    assert "dev/cer_streaming" in metrics
    again = run(tmp_path, replace(CONFIG, max_steps=1), "again", init=folder)  # keeps the ability
    assert speechjepa.load(again).encoder.config.streaming == STREAMING


def test_what_is_drawn_covers_short_chunks_long_ones_and_whole_utterances():
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_chunks(STREAMING, 25.0, generator) for _ in range(2000)]
    counts = Counter(chunks.frames if chunks else None for chunks in drawn)
    assert counts[None] == pytest.approx(1000, abs=100)
    frames = sorted(f for f in counts if f is not None)
    assert frames[0] == 4 and frames[-1] == 32
    # Uniform in the logarithm: as many between .16 and .45 s as between .45 and 1.28 s.
    short = sum(n for f, n in counts.items() if f is not None and f <= 11)
    assert short == pytest.approx(500, abs=80)
    assert all(c.left * c.frames == pytest.approx(128, abs=16) for c in drawn if c is not None)


def test_chunks_reach_the_encoder_and_a_resumed_run_draws_the_same():
    torch.manual_seed(0)
    encoder = build_encoder(SMALL).eval()
    encoder.set_streaming(STREAMING)
    config = FinetuneConfig(
        streaming=StreamingConfig(min_chunk_seconds=0.16, max_chunk_seconds=0.16, full_prob=0.0),
        mask_prob=0.0,
        mask_channel_prob=0.0,
        speed_perturbation=0.0,
    )
    waveform = 0.1 * torch.randn(1, 16000)
    one = torch.tensor([1])
    batch = Batch(waveform, torch.tensor([16000]), one, one)
    features = encode_augmented(encoder, batch, config, frozen=False)[0].features
    assert torch.equal(features, encode_augmented(encoder, batch, config, frozen=False)[0].features)
    expected = encoder.encode_in_chunks(waveform, batch.lengths, Chunks(4, 32)).features
    assert torch.allclose(features, expected, atol=1e-5)


def batch_of(lengths: list[int], key: int = 0) -> tuple[Batch, list[torch.Tensor]]:
    """Utterance i holds the number i + 1, and its label is i + 2."""
    waveform = torch.zeros(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        waveform[row, :length] = row + 1.0
    rows = torch.arange(len(lengths))
    labels = [torch.tensor([row + 2]) for row in range(len(lengths))]
    return Batch(waveform, torch.tensor(lengths), rows, rows + key), labels


def test_utterances_are_joined_with_a_pause_and_a_boundary_between_their_labels():
    config = FinetuneConfig(streaming=StreamingConfig(full_prob=0.0))
    seen = Counter()
    for key in range(0, 400, 10):
        batch, labels = batch_of([5000, 4000, 3000, 2000, 1000], key)
        made, joined = as_on_a_stream(batch, labels, config, 25.0, 1)
        seen[len(made.waveform)] += 1
        if len(made.waveform) == 5:
            assert [label.tolist() for label in joined] == [[2], [3], [4], [5], [6]]
            continue
        assert [label.tolist() for label in joined] == [[2, 1, 4], [3, 1, 5], [6]]
        row, length = made.waveform[0], int(made.lengths[0])
        assert 5000 + 3200 + 3000 <= length <= 5000 + 24000 + 3000
        assert row[:5000].std() < 1e-5 and row[length - 3000 : length].std() < 1e-5
        assert row[5000 : length - 3000].abs().max() < 0.05
        assert 10**-0.5 < row[0] < 10**0.5
        assert torch.equal(made.keys, batch.keys[:3])
        assert float(row[length:].abs().max() if length < len(row) else 0) == 0
    assert seen[3] > 10 and seen[5] > 10


def test_a_batch_that_is_heard_whole_is_left_alone():
    batch, labels = batch_of([5000, 4000])
    for config in (
        FinetuneConfig(),
        FinetuneConfig(streaming=StreamingConfig(full_prob=0.999999)),
    ):
        assert as_on_a_stream(batch, labels, config, 25.0, 1)[0] is batch


def test_only_the_native_encoder_can_learn_it():
    sizes = Wav2Vec2Config(width=16, num_layers=1, num_heads=2, ffn_width=16)
    with pytest.raises(ConfigError, match="native encoder"):
        learn_to_stream(FinetuneConfig(streaming=STREAMING), build_encoder(sizes))


def test_the_best_state_is_the_best_of_both():
    assert dev_error({"cer": 0.2}) == 0.2
    assert dev_error({"cer": 0.2, "cer_streaming": 0.3}) == 0.5
