"""Translate a stream of speech while it comes in: units, and the speech of a voice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechjepa.errors import ModelError
from speechjepa.inference.stream import streaming_chunks
from speechjepa.inference.translator import SpeechTranslator
from speechjepa.models.encoder_stream import Encoded, EncoderStream
from speechjepa.models.speech_encoder import SpeechEncoder
from speechjepa.models.speech_to_units import CtcTranslator


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """What a stream has translated since it was last asked."""

    units: tuple[int, ...]
    """Newly written; they are never revised."""
    speech: NDArray[np.float32]
    """(S,) newly spoken, at the voice's rate; empty without a voice."""
    seconds: float
    """Audio heard so far (seconds)."""


class TranslationStream:
    """One stream of speech being translated, chunk by chunk.

    A chunk's frames write units, or the blank, which means: wait. Memory is bounded, and the work
    for each chunk does not grow.

    Args:
        translator: Of a model that was trained with `streaming`.
        chunk_seconds: Audio that is heard at once.
        speak: Whether the voice speaks; False = units alone.

    Raises:
        ModelError: The model writes one token after the other, or did not learn to stream.
        ConfigError: It was not trained with chunks of this length.
    """

    def __init__(
        self, translator: SpeechTranslator, *, chunk_seconds: float = 0.32, speak: bool = True
    ) -> None:
        head, encoder = translator.translator, translator.model.encoder
        if not isinstance(head, CtcTranslator) or translator.files.kind != "units":
            raise ModelError(
                f"{translator.folder} writes one token after the other, from whole utterances: to "
                "stream, train with `translation.train.translator.head=ctc` on units"
            )
        chunks = streaming_chunks(translator.model, chunk_seconds)
        if chunks is None or not isinstance(encoder, SpeechEncoder):
            raise ModelError(
                f"{translator.folder} did not learn to stream: train it with "
                "`translation.train.streaming={}`"
            )
        self.sample_rate = translator.model.sample_rate
        """Of the samples it takes (Hz)."""
        self._head = head
        self._encoder = EncoderStream(encoder, chunks)
        self._states = head.start_stream()
        self._most = None if chunks.left is None else chunks.frames * chunks.left
        self._voice = translator.voice.stream() if speak and translator.has_voice else None
        self._previous = 0
        self._num_samples = 0
        self._is_over = False

    def feed(self, samples: NDArray[np.float32] | Tensor) -> Said:
        """Take the next samples (S,) at `sample_rate`, and return what they settle.

        Raises:
            ModelError: The samples are not such numbers, or the stream is finished.
        """
        tensor = torch.as_tensor(samples)
        if self._is_over:
            raise ModelError("this stream is finished; open another")
        if tensor.dim() != 1 or not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ModelError(
                "`samples` must be (S,) finite float32 in [-1, 1], "
                f"but is {tuple(tensor.shape)} {tensor.dtype} instead"
            )
        self._num_samples += len(tensor)
        return self._say(self._encoder.push(tensor.to(torch.float32, copy=True)))

    def finish(self) -> Said:
        """Return the rest; the stream is over."""
        if self._is_over:
            raise ModelError("this stream is finished; open another")
        self._is_over = True
        return self._say(self._encoder.finish(), last=True)

    @torch.inference_mode()
    def _say(self, chunks: list[Encoded], *, last: bool = False) -> Said:
        units: list[int] = []
        for encoded in chunks:
            logits = self._head.step(encoded.features, self._states, self._most)
            for token in logits[0].argmax(dim=-1).tolist():
                if token not in (0, self._previous):
                    units.append(token - 1)
                self._previous = token
        speech = [np.zeros(0, np.float32)]
        if self._voice is not None:
            if units:
                speech.append(self._voice.feed(torch.tensor(units)))
            if last:
                speech.append(self._voice.flush())
        return Said(
            units=tuple(units),
            speech=np.concatenate(speech),
            seconds=self._num_samples / self.sample_rate,
        )
