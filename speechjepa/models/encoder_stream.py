"""The native encoder on a stream: chunk by chunk, with the past in a bounded state."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from speechjepa.errors import ModelError
from speechjepa.models.speech_encoder import SpeechEncoder
from speechjepa.nn.feature_stream import FeatureStream
from speechjepa.nn.transformer import Chunks


class Encoded(NamedTuple):
    """A chunk of a stream."""

    features: Tensor
    """(1, T, D) that no longer change."""
    ahead: Tensor
    """(1, T', D) of the frames that it looked ahead to, as they seem now."""


class EncoderStream:
    """Encode one stream; together its outputs equal `SpeechEncoder.encode_in_chunks` of the whole,
    unless it hears speech of any level.

    Nothing is encoded twice: the state holds the samples and frames that windows and kernels
    overlap, the running statistics, and each block's keys and values of the chunks that may still
    be attended to. A chunk is encoded once the front end's look-ahead beyond it was heard.

    With a look-ahead a chunk is encoded together with the first frames of the next one, and those
    once more there: fewer errors for more delay and work, without any training for it. The outputs
    are no longer those of `encode_in_chunks`; the state is that of the chunks alone.

    Args:
        encoder: In evaluation mode.
        chunks: Frames per chunk and past chunks.
        look_ahead: Frames after a chunk that it sees.
        any_level: All that comes is speech, however faint, and what is around it; see
            `RunningStatistics.forward`.

    Raises:
        ModelError: The encoder normalises over utterances and was not trained to stream.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        chunks: Chunks,
        look_ahead: int = 0,
        *,
        any_level: bool = False,
    ) -> None:
        log_mel = encoder.feature_encoder.log_mel
        if log_mel.normalization != "global" and log_mel.running is None:
            raise ModelError(
                "this encoder normalises over whole utterances: fine-tune it with `streaming`"
            )
        self.encoder = encoder
        self.chunks = chunks
        self.look_ahead = look_ahead
        self._most = None if chunks.left is None else chunks.frames * chunks.left
        self._any_level = any_level
        self._begin(None)

    def _begin(self, statistics: Tensor | None) -> None:
        """Forget everything but statistics."""
        encoder = self.encoder
        self._front_end = FeatureStream(
            encoder.feature_encoder, statistics, any_level=self._any_level
        )
        self._blocks = [block.start_stream() for block in encoder.blocks]  # type: ignore[operator]
        self._waiting: list[Tensor] = []
        self._num_samples = self._num_encoded = 0  # encoded: frames
        self._features = encoder.norm.weight.new_zeros(1, 0, encoder.width)

    @property
    def _needed(self) -> int:
        """Samples of the stream up to which the next chunk needs to be heard."""
        frames = self._num_encoded + self.chunks.frames + self.look_ahead
        end = frames * self.encoder.hop
        return end + self.encoder.feature_encoder.look_ahead

    @torch.no_grad()
    def push(self, samples: Tensor) -> list[Encoded]:
        """Take the next samples (S,) and return the chunks that they complete."""
        self._waiting.append(samples.reshape(-1))
        self._num_samples += len(samples)
        if self._num_samples < self._needed:
            return []
        self._take(last=False)
        done = []
        while self._features.shape[1] >= self.chunks.frames + self.look_ahead:
            done.append(self._step(self.chunks.frames))
        return done

    @torch.no_grad()
    def finish(self) -> list[Encoded]:
        """Return the chunks that are left, the last one as long as it is."""
        self._take(last=True)
        done = []
        while self._features.shape[1]:
            done.append(self._step(min(self.chunks.frames, self._features.shape[1])))
        return done

    def pause(self) -> list[Encoded]:
        """Return the chunks that are left, and begin again as after a long pause.

        What follows attends to nothing before the pause; its statistics start from those before.
        """
        done = self.finish()
        running, state = self.encoder.feature_encoder.log_mel.running, self._front_end.statistics
        if running is not None and state is not None:
            state = running.after_pause(state)
        self._begin(state)
        return done

    def _take(self, *, last: bool) -> None:
        heard = torch.cat(self._waiting) if self._waiting else torch.zeros(0)
        self._waiting = []
        new = self._front_end.push(heard.to(self._features), last=last)
        self._features = torch.cat([self._features, new], 1)

    def _step(self, frames: int) -> Encoded:
        x = self._features[:, : frames + self.look_ahead]
        ahead = x.shape[1] - frames  # less at the end of the stream
        self._features = self._features[:, frames:].clone()
        self._num_encoded += frames
        for block, state in zip(self.encoder.blocks, self._blocks, strict=True):
            x = block.step(x, state, self._most, ahead)  # type: ignore[operator]
        x = self.encoder.norm(x)
        return Encoded(x[:, :frames], x[:, frames:])
