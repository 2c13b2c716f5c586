"""An anchor for short JEPA runs: predictions must also tell the acoustic cluster of a frame.

A teacher that starts from noise needs many steps before its targets mean anything. Clusters of
MFCCs mean something from the first step (HuBERT's first iteration,
https://arxiv.org/abs/2106.07447); their weight falls while the teacher gets better.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from speechjepa.audio.features import LogMel

NUM_CEPSTRA = 13


class AcousticClusters(nn.Module):
    """Nearest k-means centroid of MFCCs with two orders of deltas, at 50 Hz.

    Args:
        hop: Samples per encoder frame; R = hop / 320 clusters belong to each.
        num_clusters: K.
    """

    centroids: Tensor
    scale: Tensor
    cosines: Tensor

    def __init__(self, hop: int, num_clusters: int) -> None:
        super().__init__()
        self.per_frame = max(1, hop // 320)
        self.num_clusters = num_clusters
        self.log_mel = LogMel(40)
        channels = torch.arange(40) + 0.5
        orders = torch.arange(1, NUM_CEPSTRA + 1)[:, None]  # without the 0th, which is loudness
        self.register_buffer("cosines", torch.cos(math.pi / 40 * orders * channels).T)
        self.register_buffer("centroids", torch.zeros(num_clusters, 3 * NUM_CEPSTRA))
        self.register_buffer("scale", torch.ones(3 * NUM_CEPSTRA))

    @torch.no_grad()
    def cepstra(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return MFCCs with deltas (B, T', 39) at 50 Hz, and their lengths (B,)."""
        mel, mel_lengths = self.log_mel(waveform, lengths)
        static = _hold_last((mel @ self.cosines).transpose(1, 2), mel_lengths)  # (B, 13, T' * 2)
        first = _hold_last(_slope(static), mel_lengths)
        stacked = torch.cat([static, first, _slope(first)], dim=1)
        halved = functional.avg_pool1d(stacked, kernel_size=2, stride=2, ceil_mode=True)
        return halved.transpose(1, 2), torch.div(mel_lengths, 2, rounding_mode="floor")

    @torch.no_grad()
    def forward(self, waveform: Tensor, lengths: Tensor, num_frames: int) -> Tensor:
        """Return clusters (B, T, R) int64 for T encoder frames of waveform (B, S)."""
        with torch.autocast(waveform.device.type, enabled=False):
            cepstra, _ = self.cepstra(waveform, lengths)
            wanted = num_frames * self.per_frame
            cepstra = functional.pad(cepstra, (0, 0, 0, max(0, wanted - cepstra.shape[1])))
            scaled = cepstra[:, :wanted] / self.scale
            nearest = torch.cdist(scaled, self.centroids[None]).argmin(dim=-1)  # (B, T * R)
        return nearest.view(len(waveform), num_frames, self.per_frame)

    def fit(self, waveforms: list[Tensor], seed: int) -> None:
        """Fit the centroids to utterances, each (S,) float32."""
        from sklearn.cluster import MiniBatchKMeans

        frames = []
        for waveform in waveforms:
            found, lengths = self.cepstra(waveform[None], torch.tensor([len(waveform)]))
            frames.append(found[0, : int(lengths[0])].numpy())
        stacked = np.concatenate(frames)
        scale = stacked.std(axis=0) + 1e-5
        clusters = min(self.num_clusters, len(stacked))
        means = MiniBatchKMeans(clusters, batch_size=4096, n_init=3, random_state=seed)
        means.fit(stacked / scale)
        self.scale.copy_(torch.from_numpy(scale))
        self.centroids[:clusters] = torch.from_numpy(cast(np.ndarray, means.cluster_centers_))
        self.centroids[clusters:] = 1e3  # never the nearest


class Anchor(nn.Module):
    """Linear read-out of acoustic clusters from a JEPA's predictions.

    Args:
        width: Channels of the predictions.
        hop: Samples per encoder frame.
        num_clusters: K.
    """

    def __init__(self, width: int, hop: int, num_clusters: int) -> None:
        super().__init__()
        self.clusters = AcousticClusters(hop, num_clusters)
        self.head = nn.Linear(width, num_clusters * self.clusters.per_frame)

    def forward(self, predictions: Tensor) -> Tensor:
        """Return logits (M, R, K) of predictions (M, D)."""
        logits = self.head(predictions)
        return logits.view(len(predictions), self.clusters.per_frame, self.clusters.num_clusters)


def _hold_last(x: Tensor, lengths: Tensor) -> Tensor:
    """Go on with the last valid frame of x (B, C, T) over padding, as slopes do past the end."""
    frames = torch.arange(x.shape[2], device=x.device)[None]
    sources = torch.minimum(frames, (lengths - 1).clamp(min=0)[:, None])  # (B, T)
    return x.gather(2, sources[:, None].expand_as(x))


def _slope(x: Tensor) -> Tensor:
    """Return the regression slope over five frames of x (B, C, T)."""
    padded = functional.pad(x, (2, 2), mode="replicate")
    size = x.shape[2]
    ahead = padded[:, :, 3 : 3 + size] - padded[:, :, 1 : 1 + size]
    far = padded[:, :, 4 : 4 + size] - padded[:, :, :size]
    return (ahead + 2.0 * far) / 10.0
