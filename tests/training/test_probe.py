"""The probe tells a representation that holds the content of speech from one that does not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechjepa.models.encoder import EncoderOutput
from speechjepa.training.probe import Probe, ProbeData, start_probe
from tests.training.corpus import make_corpus

LETTERS = "abc"


class FakeEncoder(nn.Module):
    """Frames of 20 ms that say which tone sounds, or that say nothing."""

    hop = 320

    def __init__(self, informative: bool) -> None:
        super().__init__()
        self.informative = informative
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        num_frames = lengths // self.hop
        frames = waveform[:, : int(num_frames.max()) * self.hop].unflatten(1, (-1, self.hop))
        spectrum = torch.fft.rfft(frames).abs()[..., :32]  # (B, T, 32), bins of 50 Hz
        features = spectrum.repeat(1, 1, 8)  # (B, T, D), as redundant as an encoder's
        if not self.informative:
            generator = torch.Generator().manual_seed(0)
            features = torch.randn(features.shape, generator=generator)
        return EncoderOutput(features * self.scale, num_frames)


def test_the_probe_leaves_the_encoder_and_the_random_state_as_they_were(tmp_path):
    data = ProbeData(utterances=make_corpus(tmp_path / "audio", 6, LETTERS))
    encoder = FakeEncoder(True).train()
    before = torch.get_rng_state()
    Probe(data, tmp_path / "cache", steps=2, seed=0).measure(encoder)
    assert encoder.training
    assert encoder.scale.grad is None
    assert torch.equal(before, torch.get_rng_state())


def test_no_more_than_the_wanted_minutes_are_used(tmp_path):
    data = ProbeData(utterances=make_corpus(tmp_path / "audio", 20, LETTERS), max_minutes=0.1)
    probe = Probe(data, tmp_path / "cache", steps=1, seed=0)
    assert len(probe.used) == 6  # utterances of 1.2 s, until 6 s are passed


def test_there_is_no_probe_below_two_labelled_utterances(tmp_path, caplog):
    corpus = make_corpus(tmp_path / "audio", 2, LETTERS)
    for few in (corpus[:1], []):
        assert start_probe(ProbeData(utterances=few), tmp_path / "cache", 1, 0) is None
        assert caplog.messages.pop() == "no probe: it needs at least 2 labelled utterances"
        caplog.clear()
    two = start_probe(ProbeData(utterances=corpus), tmp_path / "cache", 1, 0)
    assert 0.0 <= two.measure(FakeEncoder(True))
