"""Translate waveforms: into units or characters, by the translator of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference.voice import Voice, load_voice
from speechjepa.models.encoder import EncoderOutput
from speechjepa.models.speech_to_units import CtcTranslation, Translator, UnitDecoder
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


class SpeechTranslator:
    """The translator of a model, with its voice.

    Args:
        model: From `speechjepa.load`.
        beam: Sequences that an autoregressive decoder keeps at every step.

    Raises:
        ModelError: The model does not translate.
        ConfigError: The beam is not 1 or more.
    """

    def __init__(self, model: SpeechModel, *, beam: int = 5) -> None:
        if beam < 1:
            raise ConfigError(f"`beam` must be at least 1, but is {beam} instead")
        if model.path is None:
            raise ModelError("this model was not read from a folder, so it holds no translator")
        self.model = model
        self.beam = beam
        self.translator: Translator
        self.files: TranslatorFiles
        self.translator, self.files = load_translator(model.path, model.encoder)
        self.translator.to(model.device)
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
    def translate_features(self, output: EncoderOutput) -> list[Translated]:
        """Translate what the encoder made of a batch."""
        if isinstance(self.translator, UnitDecoder):
            return [self._decode(self.translator, output, row) for row in range(len(output[0]))]
        found = self.translator(output.features, output.lengths)
        return [self._best_path(found, row) for row in range(len(found.logits))]

    def _decode(self, decoder: UnitDecoder, output: EncoderOutput, row: int) -> Translated:
        size = int(output.lengths[row])
        features = output.features[row : row + 1, :size]
        memory = decoder.remember(features, output.lengths[row : row + 1])
        best = beam_tokens(decoder, memory, most=max(16, 3 * size), beam=self.beam)[0]
        score = float(np.exp(best.score))
        if self.files.kind == "characters":
            return Translated(text=self._spell(best.tokens), score=score)
        return Translated(units=tuple(token - 1 for token in best.tokens), score=score)

    def _best_path(self, found: CtcTranslation, row: int) -> Translated:
        size = int(found.lengths[row])
        best, path = found.logits[row, :size].softmax(dim=-1).max(dim=-1)
        tokens, frames = _first_frames(path.tolist())
        score = float(best[frames].mean()) if frames else 0.0
        if self.files.kind == "characters":
            return Translated(text=self._spell(tokens), score=score)
        seconds = self.model.hop / self.model.sample_rate / self.translator.config.upsample
        text = None
        if found.text_logits is not None and self.files.text_vocabulary is not None:
            written = found.text_logits[row, :size].argmax(dim=-1)
            text = self.files.text_vocabulary.decode_ctc(written.tolist())
        return Translated(
            units=tuple(token - 1 for token in tokens),
            times=tuple(round((frame + 1) * seconds, 3) for frame in frames),
            text=text,
            score=score,
        )

    def _spell(self, tokens: Sequence[int]) -> str:
        assert self.files.vocabulary is not None
        return " ".join(self.files.vocabulary.decode(tokens).split())

    def speak(self, units: Sequence[int]) -> NDArray[np.float32]:
        """Return units as speech (S,) at 16 kHz; no units are silence of no length."""
        if not units:
            return np.zeros(0, np.float32)
        return self.voice.speak(torch.tensor(units, dtype=torch.int64))


def _first_frames(path: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the tokens of a CTC path, and the frame at which each begins."""
    tokens: list[int] = []
    frames: list[int] = []
    previous = 0
    for frame, token in enumerate(path):
        if token not in (0, previous):
            tokens.append(token)
            frames.append(frame)
        previous = token
    return tokens, frames
