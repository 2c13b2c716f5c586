"""Translate waveforms: into units or characters, by the translator of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference.decoding import Decoder
from speechjepa.inference.search import Hypothesis
from speechjepa.inference.stream_tokens import TokenStream
from speechjepa.inference.translator_language_model import Part, TokenDecoder
from speechjepa.inference.voice import Voice, load_voice
from speechjepa.models.encoder import EncoderOutput
from speechjepa.models.speech_to_units import CtcTranslation, CtcTranslator, Translator, UnitDecoder
from speechjepa.models.translator_files import TranslatorFiles, load_translator
from speechjepa.models.unit_search import beam_tokens

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel

BATCH_SECONDS = 60.0
"""Padded audio that is translated at once (seconds)."""
VOICE_FOLDER = "voice"


@dataclass(frozen=True, kw_only=True)
class Translated:
    """What a stretch of speech becomes in another language."""

    units: tuple[int, ...] = ()
    """Each once in a row; empty where characters are written."""
    times: tuple[float, ...] | None = None
    """Seconds into the stretch at which each unit was written; None = all at the end."""
    text: str | None = None
    """None where the translator knows no characters."""
    score: float = 0.0
    """Mean probability of what is written, in [0, 1]."""
    speech: NDArray[np.float32] | None = None
    """A recording that says it, (S,) at 16 kHz; None = units are spoken."""


class SpeechTranslator:
    """The translator of a model, with its voice.

    Args:
        model: From `speechjepa.load`.
        beam: Sequences that an autoregressive decoder keeps at every step.
        decoder: "greedy" = the likeliest token at each step; "beam" = beam search, of CTC with
            the bundle's language model; "auto" = beam search wherever that is possible.

    Raises:
        ModelError: The model does not translate, or has no language model although "beam" was
            asked for.
        ConfigError: The beam is not 1 or more, or `decoder` is none of these.
    """

    def __init__(self, model: SpeechModel, *, beam: int = 5, decoder: Decoder = "auto") -> None:
        if beam < 1:
            raise ConfigError(f"`beam` must be at least 1, but is {beam} instead")
        if model.path is None:
            raise ModelError("this model was not read from a folder, so it holds no translator")
        self.model = model
        self.beam = 1 if decoder == "greedy" else beam
        self.translator: Translator
        self.files: TranslatorFiles
        self.translator, self.files = load_translator(model.path, model.encoder)
        self.translator.to(model.device)
        self._decoder = TokenDecoder(model.path, self.files, decoder)
        self._voice: Voice | None = None

    @property
    def folder(self) -> Path:
        """The bundle."""
        assert self.model.path is not None
        return self.model.path

    @property
    def has_voice(self) -> bool:
        """Whether units can be spoken."""
        return self.files.kind == "units" and (self.folder / VOICE_FOLDER).is_dir()

    @property
    def has_language_model(self) -> bool:
        """Whether what it writes is found with a language model."""
        return bool(self._decoder.parts)

    def load_language_model(self) -> None:
        """Read the language model now, if there is one, rather than with the first speech.

        Raises:
            ModelError: flashlight-text is not installed, or it is of other units.
            DataError: Its file is damaged.
        """
        self._decoder.load()

    def token_stream(self, part: Part) -> TokenStream:
        """Return what turns the logits of a stream into tokens, with the language model if any.

        Raises:
            ModelError, DataError: As `load_language_model`.
        """
        seconds = self.model.hop / self.model.sample_rate / self.translator.config.upsample
        return TokenStream(self._decoder.search(part), frame_seconds=seconds)

    @property
    def writes_text(self) -> bool:
        """Whether it writes text, beside units or in place of them."""
        if self.files.kind == "characters":
            return True
        return "text" in self.translator.auxiliary and self.files.text_vocabulary is not None

    @property
    def voice(self) -> Voice:
        """What speaks the units.

        Raises:
            ModelError: The bundle holds none, or it speaks other units.
        """
        if self._voice is None:
            if self.files.kind != "units":
                raise ModelError(f"{self.folder} translates into text: it has no voice")
            voice = load_voice(self.folder / VOICE_FOLDER)
            if voice.units.num_units != self.files.num_tokens - 1:
                raise ModelError(
                    f"{self.folder}: the voice must speak {self.files.num_tokens - 1} units, "
                    f"but speaks {voice.units.num_units} instead: make it of these units"
                )
            self._voice = voice
        return self._voice

    def translate(self, waveforms: Sequence[NDArray[np.float32]]) -> list[Translated]:
        """Translate stretches of speech, each of them (S,) at the model's rate, in their order."""
        found: dict[int, Translated] = {}
        order = sorted(range(len(waveforms)), key=lambda place: len(waveforms[place]))
        most = BATCH_SECONDS * self.model.sample_rate
        batch: list[int] = []
        for place in order:
            if batch and (len(batch) + 1) * len(waveforms[place]) > most:
                found |= self._batch(batch, waveforms)
                batch = []
            batch.append(place)
        if batch:
            found |= self._batch(batch, waveforms)
        return [found[place] for place in range(len(waveforms))]

    def _batch(
        self, places: Sequence[int], waveforms: Sequence[NDArray[np.float32]]
    ) -> dict[int, Translated]:
        lengths = torch.tensor([len(waveforms[place]) for place in places])
        padded = torch.zeros(len(places), int(lengths.max()))  # (B, S)
        for row, place in enumerate(places):
            padded[row, : len(waveforms[place])] = torch.from_numpy(waveforms[place])
        output = self.model.encode(padded, lengths)
        return dict(zip(places, self.translate_features(output), strict=True))

    @torch.no_grad()
    def logits(self, waveform: Tensor) -> CtcTranslation:
        """Return what a CTC translator says of the frames of a waveform (S,).

        Raises:
            ModelError: It writes one token after the other.
        """
        if not isinstance(self.translator, CtcTranslator):
            raise ModelError(f"{self.folder} writes one token after the other: it has no logits")
        output = self.model.encode(waveform[None], torch.tensor([len(waveform)]))
        found: CtcTranslation = self.translator(output.features, output.lengths)
        return found

    @torch.no_grad()
    def translate_features(self, output: EncoderOutput) -> list[Translated]:
        """Translate what the encoder made of a batch."""
        if isinstance(self.translator, UnitDecoder):
            return [self._decode(self.translator, output, row) for row in range(len(output[0]))]
        found = self.translator(output.features, output.lengths)
        return self._written(found)

    def _decode(self, decoder: UnitDecoder, output: EncoderOutput, row: int) -> Translated:
        size = int(output.lengths[row])
        features = output.features[row : row + 1, :size]
        memory = decoder.remember(features, output.lengths[row : row + 1])
        best = beam_tokens(decoder, memory, most=max(16, 3 * size), beam=self.beam)[0]
        score = float(np.exp(best.score))
        if self.files.kind == "characters":
            assert self.files.vocabulary is not None
            text = self.files.vocabulary.decode(best.tokens)
            return Translated(text=" ".join(text.split()), score=score)
        return Translated(units=tuple(token - 1 for token in best.tokens), score=score)

    def _written(self, found: CtcTranslation) -> list[Translated]:
        """Return what the logits of a batch say."""
        tokens = self._decoder.decode("tokens", found.logits, found.lengths)
        scores = [_score(found.logits[row], one) for row, one in enumerate(tokens)]
        if self.files.kind == "characters":
            return [
                Translated(text=one.text, score=score)
                for one, score in zip(tokens, scores, strict=True)
            ]
        texts: list[str | None] = [None] * len(tokens)
        if found.text_logits is not None and self.files.text_vocabulary is not None:
            written = self._decoder.decode("text", found.text_logits, found.lengths)
            texts = [one.text for one in written]
        seconds = self.model.hop / self.model.sample_rate / self.translator.config.upsample
        return [
            Translated(
                units=tuple(token - 1 for token in one.token_ids),
                times=tuple(round((frame + 1) * seconds, 3) for frame in one.frames),
                text=text,
                score=score,
            )
            for one, text, score in zip(tokens, texts, scores, strict=True)
        ]

    def speak(self, units: Sequence[int]) -> NDArray[np.float32]:
        """Return units as speech (S,) at 16 kHz; no units are silence of no length."""
        if not units:
            return np.zeros(0, np.float32)
        return self.voice.speak(torch.tensor(units, dtype=torch.int64))


def _score(logits: Tensor, found: Hypothesis) -> float:
    """Return the mean probability of tokens where they begin, by the logits (T, V) alone."""
    if not found.frames:
        return 0.0
    rows = logits[list(found.frames)].float().softmax(dim=-1)
    return float(rows[range(len(rows)), list(found.token_ids)].mean())
