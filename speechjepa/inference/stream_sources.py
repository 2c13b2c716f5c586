"""Logits of a stream of audio: chunk by chunk, or by hearing the last seconds again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from speechjepa.inference.stitch import encode_batch, frames_per_hop
from speechjepa.models.encoder_stream import Encoded, EncoderStream
from speechjepa.nn.transformer import Chunks

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel
    from speechjepa.inference.transcribe import TranscriptionModel
    from speechjepa.models.ctc import CtcModel


class Piece(NamedTuple):
    """The next frames of a stream."""

    logits: Tensor
    """(T, V) that no longer change."""
    tentative: Tensor
    """(T', V) of the frames after them, as they seem now."""
    samples: int
    """Samples of the stream that were needed for them."""
    nearly_sure: bool = False
    """The tentative frames are nearly what they will be: words before them may go by them."""


class LogitSource(Protocol):
    """What turns samples into logits."""

    @property
    def covered(self) -> int:
        """Samples that frames stand for, or will: a pause drops what is shorter than a frame."""

    def push(self, samples: Tensor) -> Iterator[Piece]:
        """Take the next samples (S,) and yield the pieces that they complete."""

    def pause(self) -> Iterator[Piece]:
        """Yield what no longer changes because silence follows, which is not given."""

    def finish(self) -> Iterator[Piece]:
        """Yield what is left at the end of the stream."""


class ChunkSource:
    """Logits of an encoder that streams, chunk by chunk.

    Args:
        model: With an encoder that learned to stream.
        ctc: Its encoder and head.
        chunks: Frames per chunk and past chunks.
        look_ahead: Frames after a chunk that it sees, and that are encoded again with the next.
        any_level: See `EncoderStream`.
    """

    def __init__(
        self,
        model: SpeechModel,
        ctc: CtcModel,
        chunks: Chunks,
        look_ahead: int = 0,
        *,
        any_level: bool = False,
    ) -> None:
        self._ctc = ctc
        self._stream = EncoderStream(ctc.encoder, chunks, look_ahead, any_level=any_level)  # type: ignore[arg-type]
        self._chunk_samples = chunks.frames * model.hop
        self._look_ahead = look_ahead * model.hop + model.encoder.feature_encoder.look_ahead
        self._num_chunks = self._num_samples = 0  # since the last pause
        self._hop = model.hop
        self._before = 0  # samples of the frames before it
        self._none = torch.zeros(0, len(model.vocabulary))

    @torch.inference_mode()
    def push(self, samples: Tensor) -> Iterator[Piece]:
        """Take the next samples (S,) and yield a piece per chunk."""
        self._num_samples += len(samples)
        for encoded in self._stream.push(samples):
            self._num_chunks += 1
            needed = self._num_chunks * self._chunk_samples + self._look_ahead
            yield self._piece(encoded, self._before + needed)

    @property
    def covered(self) -> int:
        """Samples that frames stand for, or will."""
        return self._before + self._num_samples

    @torch.inference_mode()
    def pause(self) -> Iterator[Piece]:
        """Yield what is left, and begin again."""
        for encoded in self._stream.pause():
            yield self._piece(encoded, self._before + self._num_samples)
        self._before += self._num_samples // self._hop * self._hop
        self._num_chunks = self._num_samples = 0

    def finish(self) -> Iterator[Piece]:
        """Yield the rest."""
        yield from self.pause()

    def _piece(self, encoded: Encoded, samples: int) -> Piece:
        logits, tentative = (
            self._ctc.head_logits(features)[0].cpu() if features.shape[1] else self._none
            for features in encoded
        )
        return Piece(logits, tentative, samples, nearly_sure=len(tentative) > 0)


class WindowSource:
    """Logits of any model: the last seconds are encoded again with every chunk.

    What was heard `look_ahead_seconds` ago no longer changes, nor does what a pause follows.
    Before that comes the context: speech heard earlier, without its long pauses.

    Args:
        model: A fine-tuned model.
        silent: Says of logits (T, V) which frames hold no character: (T,).
        chunk_seconds: What is added each time (seconds).
        window_seconds: What is encoded at most (seconds).
        look_ahead_seconds: What has to follow a frame (seconds).
        pause_seconds: Silence after which nothing more has to follow (seconds).
    """

    def __init__(
        self,
        model: TranscriptionModel,
        silent: Callable[[Tensor], Tensor],
        *,
        chunk_seconds: float,
        window_seconds: float,
        look_ahead_seconds: float = 0.96,
        pause_seconds: float = 0.48,
    ) -> None:
        self._model = model
        self._silent = silent
        rate, hop = model.sample_rate, model.hop
        self._per_hop = frames_per_hop(model)
        self._chunk = max(1, round(chunk_seconds * rate))
        self._look_ahead = max(1, round(look_ahead_seconds * rate / hop))  # hops
        self._pause = max(1, round(pause_seconds * rate / hop))
        self._most = max(self._look_ahead + 1, round(window_seconds * rate / hop))
        self._margin = round(0.2 * rate / hop)
        self._context = torch.zeros(0)  # released; whole hops
        self._context_ends_silent = True
        self._pending = torch.zeros(0)
        self._since = 0  # samples since the last encoding
        self._num_samples = 0

    def push(self, samples: Tensor) -> Iterator[Piece]:
        """Take the next samples (S,) and yield a piece per chunk."""
        start = 0
        while self._since + len(samples) - start >= self._chunk:
            size = self._chunk - self._since
            self._take(samples[start : start + size])
            start += size
            self._since = 0
            logits = self._encode()
            hops = self._settled(logits)
            yield self._release(logits, hops)
        self._since += len(samples) - start
        self._take(samples[start:])

    @property
    def covered(self) -> int:
        """Samples that frames stand for, or will."""
        return self._num_samples

    def pause(self) -> Iterator[Piece]:
        """Yield all that is pending."""
        yield from self.finish()

    def finish(self) -> Iterator[Piece]:
        """Yield the rest."""
        if len(self._pending):
            logits = self._encode()
            yield self._release(logits, len(logits) // self._per_hop)

    def _take(self, samples: Tensor) -> None:
        self._pending = torch.cat([self._pending, samples.cpu()])
        self._num_samples += len(samples)

    def _encode(self) -> Tensor:
        """Return the logits (T, V) of the pending samples, heard after their context."""
        window = torch.cat([self._context, self._pending]).numpy()
        logits = encode_batch(self._model, [window])[0]
        return logits[len(self._context) // self._model.hop * self._per_hop :]

    def _settled(self, logits: Tensor) -> int:
        """Return how many pending hops no longer change."""
        hops = len(logits) // self._per_hop
        silent = self._silent(logits[: hops * self._per_hop]).view(hops, -1).all(dim=1).tolist()
        trailing = next((n for n, s in enumerate(reversed(silent)) if not s), hops)
        if trailing >= self._pause:
            return hops
        settled = max(0, hops - self._look_ahead)
        # Cut where there is no character, or the next encoding might write it a second time.
        for end in range(settled, max(0, settled - self._margin), -1):
            if silent[end - 1]:
                return end
        return settled if settled > 2 * self._margin else 0

    def _release(self, logits: Tensor, hops: int) -> Piece:
        """Give the first pending hops away; they become context."""
        frames, samples = hops * self._per_hop, hops * self._model.hop
        released, self._pending = self._pending[:samples], self._pending[samples:].clone()
        is_silent = bool(self._silent(logits[:frames]).all())
        if not is_silent or not self._context_ends_silent:
            self._context = torch.cat([self._context, released])
        if hops:
            self._context_ends_silent = is_silent
        most = self._most - len(self._pending) // self._model.hop
        excess = len(self._context) - max(0, most) * self._model.hop
        if excess > 0:
            hop = self._model.hop
            self._context = self._context[-(-excess // hop) * hop :].clone()
        return Piece(logits[:frames], logits[frames:], self._num_samples)
