"""Targets of pretraining have the values they are said to have, and padding changes none."""

from __future__ import annotations

import torch

from speechjepa.audio.features import LogMel
from speechjepa.models.anchor import AcousticClusters, Anchor
from speechjepa.models.pretraining import ContextPredictionModel, LogMelTargets
from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig

SMALL = SpeechEncoderConfig(width=32, num_layers=2, num_heads=2, ffn_width=64, frame_rate=25)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(hop: int = 640, num_clusters: int = 6, seed: int = 3) -> AcousticClusters:
    clusters = AcousticClusters(hop, num_clusters)
    clusters.fit([noise(16000, seed=1), noise(12000, seed=2)], seed)
    return clusters


def test_context_and_predictions_never_see_hidden_features():
    torch.manual_seed(0)
    model = ContextPredictionModel(SpeechEncoder(SMALL), 5, predictor_width=16).eval()
    features, lengths = noise(2, 20, 32), torch.tensor([20, 13])
    hidden = torch.zeros(2, 20, dtype=torch.bool)
    hidden[:, 4:9] = True
    predictions, context = model.predict(features, lengths, hidden)
    disturbed = torch.where(hidden[:, :, None], noise(2, 20, 32, seed=9) * 100, features)
    again, context_again = model.predict(disturbed, lengths, hidden)
    assert context.lengths.tolist() == [15, 8]
    assert torch.equal(context.features, context_again.features)
    assert torch.equal(predictions, again)
    features[0, 0] += 1.0  # a visible frame does reach them
    assert not torch.allclose(predictions[0], model.predict(features, lengths, hidden)[0][0])


def test_log_mel_targets_are_the_mel_frames_of_each_encoder_frame_side_by_side():
    waveform, lengths = noise(2, 16000), torch.tensor([16000, 9000])
    targets = LogMelTargets(640, num_mels=8)(waveform, lengths, 25)
    mel, _ = LogMel(8)(waveform, lengths)
    assert targets.shape == (2, 25, 4 * 8)
    assert torch.equal(targets[1, 3], mel[1, 12:16].flatten())


def test_clusters_are_those_of_the_nearest_centroids():
    clusters, waveform = fitted(), noise(1, 16000, seed=5)
    found = clusters(waveform, torch.tensor([16000]), 25)
    assert found.shape == (1, 25, 2)
    cepstra = clusters.cepstra(waveform, torch.tensor([16000]))[0][0] / clusters.scale  # (50, 39)
    nearest = [
        min(range(6), key=lambda k: float((row - clusters.centroids[k]).norm())) for row in cepstra
    ]
    assert found.flatten().tolist() == nearest
    assert len(set(nearest)) > 2


def test_the_same_seed_fits_the_same_clusters():
    assert torch.equal(fitted().centroids, fitted().centroids)


def test_clusters_without_data_to_fit_are_never_chosen():
    clusters = AcousticClusters(640, 200)
    clusters.fit([noise(16000)], 0)  # 50 frames make 50 clusters
    assert int(clusters(noise(1, 16000, seed=4), torch.tensor([16000]), 25).max()) < 50


def test_padding_does_not_change_clusters():
    clusters = fitted()
    for num_samples in (9000, 9600, 9800):
        waveform, lengths = noise(1, num_samples, seed=7), torch.tensor([num_samples])
        padded = torch.nn.functional.pad(waveform, (0, 7000), value=0.5)
        alone, alone_lengths = clusters.cepstra(waveform, lengths)
        beside, beside_lengths = clusters.cepstra(padded, lengths)
        assert torch.equal(alone_lengths, beside_lengths)
        count = int(alone_lengths)
        torch.testing.assert_close(beside[:, :count], alone[:, :count])


def test_the_anchor_reads_out_every_cluster_frame_of_an_encoder_frame():
    assert Anchor(16, 640, 7)(noise(3, 16)).shape == (3, 2, 7)
