"""What a recipe says about translation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from speechjepa.data.synthetic.pairs import PhrasePairs
from speechjepa.errors import ConfigError
from speechjepa.inference.translator_language_model import TokenModelConfig
from speechjepa.training.config import FinetuneConfig
from speechjepa.training.translation_config import TranslateConfig


@dataclass(frozen=True, kw_only=True)
class UnitsConfig:
    """The units that a translator writes."""

    layer: int | Literal["mel"] = 8
    """Layer of the encoder whose frames are grouped; 0 is the input of the first block. "mel" =
    log-mel frames, without any encoder."""
    num_units: int = 100
    """Kinds of units."""
    phases: int = 4
    """Times that the encoder hears a recording, each a part of a frame later. At one, where the
    first frame begins decides half of the units (docs/LOG.md)."""
    change_penalty: float = 8.0
    """What a change of unit costs, in mean squared distances of a frame to its centroid."""
    model: Path = Path("shipped")
    """Bundle whose encoder makes the frames."""


@dataclass(frozen=True, kw_only=True)
class TranslationConfig:
    """Translation of speech into speech or text; the pairs are those of `data.train`."""

    language: str | None = None
    """Of the target: which entry of the columns `target_audio` and `translation`; null = the only
    one."""
    phrases: PhrasePairs | None = None
    """Parallel speech to synthesise first, into the folder that holds `data.train`."""
    spoken_by: str | None = None
    """Language of espeak-ng (`fr-fr`) that speaks the target's text where it has no audio."""
    target: str | None = None
    """Corpus of the target language, joined with `data.train` by `key`; null = columns say it."""
    target_dev: str | None = None
    """The same for `data.dev`; null = `target`."""
    writes: Literal["units", "characters"] = "units"
    """"units": speech to speech. "characters": speech to text."""
    units: UnitsConfig | None = field(default_factory=UnitsConfig)
    """null = those of `init`, a run of translation."""
    voice: Literal["selection", "vocoder"] | None = "selection"
    """What speaks the units; null = nothing does."""
    voice_minutes: float = 60.0
    """Target speech that the voice is made of (minutes). Of 45 it lost half of what it lost of 15
    (docs/LOG.md); a voice of joined recordings takes 1.6 MB and 4 s of one core a minute. Where all
    translations of the pairs last no longer, `--head retrieval` says the recordings themselves."""
    vocoder_minutes: float = 20.0
    """Training of a vocoder (minutes)."""
    train: TranslateConfig = field(default_factory=TranslateConfig)
    """Of the translator."""
    language_model: TokenModelConfig | None = field(default_factory=TokenModelConfig)
    """Of what CTC writes, estimated from the pairs' targets, kept if it lowers the error rate on
    dev; null = the best path. A decoder that writes one token after the other has none."""
    recogniser: FinetuneConfig | None = None
    """Recogniser of the target language to score speech with, trained on the pairs' true target
    speech and its text, never on what a voice says; null = speech is scored by its units alone."""
    max_dev_pairs: int = 300
    """Pairs of `data.dev` that are translated in the end, evenly spaced."""
    num_examples: int = 3
    """Translations of which source, translation and true target are written as wav."""

    def __post_init__(self) -> None:
        if not self.voice_minutes > 0:
            raise ConfigError(
                f"`voice_minutes` must be more than 0, but is {self.voice_minutes} instead"
            )
        if self.max_dev_pairs < 1:
            raise ConfigError(
                f"`max_dev_pairs` must be at least 1, but is {self.max_dev_pairs} instead"
            )
        if self.num_examples < 0:
            raise ConfigError(
                f"`num_examples` must be at least 0, but is {self.num_examples} instead"
            )
