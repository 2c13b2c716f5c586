"""Translate a stream of speech while it comes in: units, text, and the speech of a voice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechjepa.audio.voice import make_detector
from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference.stream import streaming_chunks
from speechjepa.inference.stream_gate import AFTER_SECONDS, Gate
from speechjepa.inference.translate import MARGIN_SECONDS, longest_seconds
from speechjepa.inference.translator import SpeechTranslator, Translated
from speechjepa.inference.voice import VoiceStream
from speechjepa.models.encoder_stream import Encoded, EncoderStream
from speechjepa.models.speech_encoder import SpeechEncoder
from speechjepa.models.speech_to_units import CtcTranslator

Vad = Literal["silero", "none"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """What a stream has translated since it was last asked."""

    units: tuple[int, ...]
    """Newly written; they are never revised."""
    text: str | None
    """Characters newly written, never revised either; a word may go on in the next piece. None
    where the translator knows no characters."""
    speech: NDArray[np.float32]
    """(S,) newly spoken, at the voice's rate; empty without a voice."""
    seconds: float
    """Audio heard so far (seconds)."""
    endpoint: bool = False
    """A long pause was heard: what was said before it is translated to its end."""


class LiveTranslation(ABC):
    """A stream of speech being translated; see `open_translation`.

    Long pauses are not listened to, so that noise is never taken for speech: what comes before one
    is finished, and what comes after it begins afresh.

    Args:
        translator: That translates.
        speak: Whether the voice speaks; False = units and text alone.
        vad: What tells speech from the noise in long pauses; none = everything is listened to.

    Raises:
        ConfigError: `vad` is neither.
    """

    def __init__(
        self, translator: SpeechTranslator, *, speak: bool = True, vad: Vad = "silero"
    ) -> None:
        if vad not in ("silero", "none"):
            raise ConfigError(
                f"`vad` of a stream must be silero or none, but is {vad!r} instead: levels are "
                "judged ten seconds at a time, too late for it"
            )
        self.sample_rate = translator.model.sample_rate
        """Of the samples it takes (Hz)."""
        self._translator = translator
        self._gate = Gate(None if vad == "none" else make_detector(vad), self.sample_rate)
        self._speaks = speak and translator.has_voice
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
        said: list[Said] = []
        for passed in self._gate.push(tensor.to(torch.float32, copy=True)):
            said += self._hear(passed.samples)
            if passed.closes:
                said += self._pause(AFTER_SECONDS)
        return self._joined(said)

    def finish(self) -> Said:
        """Return the rest; the stream is over."""
        if self._is_over:
            raise ModelError("this stream is finished; open another")
        self._is_over = True
        said = [one for passed in self._gate.finish() for one in self._hear(passed.samples)]
        rest = self._joined([*said, *self._pause(0.0)])
        return replace(rest, text=None if rest.text is None else rest.text.rstrip(" "))

    @abstractmethod
    def _hear(self, samples: Tensor) -> Iterable[Said]:
        """Take samples of speech (S,)."""

    @abstractmethod
    def _pause(self, quiet_seconds: float) -> Iterable[Said]:
        """Say the rest, and begin afresh; the last samples were no speech for so long."""

    def _joined(self, said: Sequence[Said]) -> Said:
        texts = [one.text or "" for one in said]
        return Said(
            units=tuple(unit for one in said for unit in one.units),
            text="".join(texts) if self._translator.writes_text else None,
            speech=np.concatenate([np.zeros(0, np.float32), *(one.speech for one in said)]),
            seconds=self._num_samples / self.sample_rate,
            endpoint=any(one.endpoint for one in said),
        )


class TranslationStream(LiveTranslation):
    """One that writes while it listens, chunk by chunk.

    A chunk's frames write units, or the blank, which means: wait. Memory is bounded, and the work
    for each chunk does not grow.

    Args:
        translator: Of a model that was trained with `streaming`.
        chunk_seconds: Audio that is heard at once.
        speak: Whether the voice speaks; False = units and text alone.
        vad: What tells speech from the noise in long pauses; none = everything is listened to.

    Raises:
        ModelError: The model writes one token after the other, or did not learn to stream.
        ConfigError: It was not trained with chunks of this length, or `vad` is neither.
    """

    def __init__(
        self,
        translator: SpeechTranslator,
        *,
        chunk_seconds: float = 0.32,
        speak: bool = True,
        vad: Vad = "silero",
    ) -> None:
        super().__init__(translator, speak=speak, vad=vad)
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
        self._head = head
        self._encoder = EncoderStream(encoder, chunks, any_level=vad != "none")
        self._most = None if chunks.left is None else chunks.frames * chunks.left
        self._begin()

    def _begin(self) -> None:
        """Forget what was said before."""
        self._states = self._head.start_stream()
        self._units = self._translator.token_stream("tokens")
        self._text = self._translator.token_stream("text")
        self._voice: VoiceStream | None = None  # made for the first unit
        self._last_character = ""

    def _hear(self, samples: Tensor) -> Iterable[Said]:
        yield self._say(self._encoder.push(samples))

    def _pause(self, quiet_seconds: float) -> Iterable[Said]:
        yield self._say(self._encoder.pause(), last=True)
        self._begin()

    @torch.inference_mode()
    def _say(self, chunks: Iterable[Encoded], *, last: bool = False) -> Said:
        """Translate chunks; with the last one, say what the voice still holds back."""
        units: list[int] = []
        symbols: list[int] = []
        vocabulary = self._translator.files.text_vocabulary
        for encoded in chunks:
            logits, text_logits = self._head.step(encoded.features, self._states, self._most)
            units += [token - 1 for token in self._units.push(logits[0])]
            if text_logits is not None and vocabulary is not None:
                symbols += self._text.push(text_logits[0])
        if last:
            units += [token - 1 for token in self._units.finish()]
            symbols += self._text.finish()
        speech = [np.zeros(0, np.float32)]
        if self._speaks and units:
            self._voice = self._voice or self._translator.voice.stream()
            speech.append(self._voice.feed(torch.tensor(units)))
        if last and self._voice is not None:
            speech.append(self._voice.flush())
        text = None
        if self._translator.writes_text and vocabulary is not None:
            text = vocabulary.decode(symbols)
            self._last_character = (self._last_character + text)[-1:]
            if last and self._last_character.strip():
                text += " "  # before what is said after the pause
        return Said(
            units=tuple(units),
            text=text,
            speech=np.concatenate(speech),
            seconds=self._num_samples / self.sample_rate,
            endpoint=last,
        )


class UtteranceStream(LiveTranslation):
    """One that translates what was said when a pause follows: for models of whole utterances.

    Memory is bounded: who speaks for long without a pause is translated in the middle.

    Args:
        translator: Any.
        speak: Whether the voice speaks; False = units and text alone.
        vad: What finds the pauses; none = there are none.

    Raises:
        ConfigError: `vad` is neither.
        ModelError: The language model cannot be read.
    """

    def __init__(
        self, translator: SpeechTranslator, *, speak: bool = True, vad: Vad = "silero"
    ) -> None:
        super().__init__(translator, speak=speak, vad=vad)
        translator.load_language_model()
        self._most = round(longest_seconds(translator.model) * self.sample_rate)
        self._pending: list[Tensor] = []

    def _hear(self, samples: Tensor) -> Iterable[Said]:
        while len(samples):
            room = self._most - sum(map(len, self._pending))
            self._pending.append(samples[:room])
            samples = samples[room:]
            if len(samples):
                yield self._utterance(endpoint=False)

    def _pause(self, quiet_seconds: float) -> Iterable[Said]:
        needless = max(0.0, quiet_seconds - MARGIN_SECONDS)
        yield self._utterance(endpoint=True, needless=round(needless * self.sample_rate))

    def _utterance(self, *, endpoint: bool, needless: int = 0) -> Said:
        """Translate what is pending, without so many samples at its end."""
        waveform = torch.cat([torch.zeros(0), *self._pending]).numpy()
        waveform = waveform[: max(0, len(waveform) - needless)]
        self._pending = []
        found = Translated()
        if len(waveform) >= self._translator.model.hop:
            (found,) = self._translator.translate([waveform])
        spoken = self._translator.speak(found.units) if self._speaks else np.zeros(0, np.float32)
        return Said(
            units=found.units,
            text=f"{found.text} " if found.text else None,
            speech=spoken,
            seconds=self._num_samples / self.sample_rate,
            endpoint=endpoint,
        )


def streams(translator: SpeechTranslator) -> bool:
    """Say whether a translator learned to write while it listens."""
    encoder = translator.model.encoder
    return (
        isinstance(translator.translator, CtcTranslator)
        and translator.files.kind == "units"
        and isinstance(encoder, SpeechEncoder)
        and (
            encoder.config.streaming is not None
            or streaming_chunks(translator.model, 0.32) is not None
        )
    )


def open_translation(
    translator: SpeechTranslator,
    *,
    chunk_seconds: float = 0.32,
    speak: bool = True,
    vad: Vad = "silero",
) -> LiveTranslation:
    """Return a stream to feed with audio: while it is spoken, or after each pause.

    Args:
        translator: Any; one that was trained with `streaming` writes while it listens.
        chunk_seconds: Audio that such a one hears at once.
        speak: Whether the voice speaks; False = units and text alone.
        vad: What tells speech from the noise in long pauses; none = everything is listened to.

    Raises:
        ConfigError: It was not trained with chunks of this length, or `vad` is neither.
    """
    if streams(translator):
        return TranslationStream(translator, chunk_seconds=chunk_seconds, speak=speak, vad=vad)
    return UtteranceStream(translator, speak=speak, vad=vad)
