"""A loaded model: encode, logits, transcribe."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from speechjepa.audio.voice import DetectorName
from speechjepa.config import to_dict
from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference.compute import Computation, Forward, prepare
from speechjepa.models.bundle import Bundle, load_bundle, num_parameters
from speechjepa.models.ctc import CtcModel
from speechjepa.models.encoder import EncoderOutput
from speechjepa.models.hub import fetch_published, is_hub_name
from speechjepa.models.language_classifier import LanguageClassifier
from speechjepa.models.shipped import shipped_encoder
from speechjepa.models.translator_files import has_translator
from speechjepa.text.normalize import TextConfig
from speechjepa.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from speechjepa.inference.decoding import Decoder
    from speechjepa.inference.search import BeamSearch
    from speechjepa.inference.stream import Stream
    from speechjepa.inference.translate_stream import LiveTranslation


class SpeechModel:
    """A bundle ready to be used; see `speechjepa.load`.

    Args:
        bundle: What was read.
        device: Where it runs.
        compute_type: See `load`.
    """

    _forward: Forward | None = None
    computation: Computation | None = None
    """The number format it computes in, where one was asked for."""

    def __init__(
        self,
        bundle: Bundle,
        device: str | torch.device = "cpu",
        compute_type: Literal["auto", "float32", "bfloat16", "int8"] | None = None,
    ) -> None:
        self.bundle = bundle
        self.device = torch.device(device)
        self.encoder = bundle.encoder.to(self.device).eval()
        if bundle.ctc is not None:
            bundle.ctc.to(self.device).eval()
            if compute_type is not None:
                self.computation, self._forward = prepare(bundle.ctc, compute_type)

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waveforms it takes (Hz)."""
        return self.encoder.sample_rate

    @property
    def hop(self) -> int:
        """Samples per encoder frame."""
        return self.encoder.hop

    @property
    def frame_seconds(self) -> float:
        """Seconds per logit frame."""
        upsample = 1 if self.bundle.ctc is None else self.bundle.ctc.upsample
        return self.hop / self.sample_rate / upsample

    @property
    def logit_hop(self) -> float:
        """Samples per logit frame; a fraction when the head upsamples by more than the hop."""
        return self.frame_seconds * self.sample_rate

    @property
    def vocabulary(self) -> Vocabulary:
        """Characters of the CTC head."""
        if self.bundle.vocabulary is None:
            raise self._without_head("has no vocabulary: it was pretrained but not fine-tuned")
        return self.bundle.vocabulary

    @property
    def text_config(self) -> TextConfig:
        """How transcripts were normalised for training."""
        return self.bundle.text

    @property
    def languages(self) -> tuple[str, ...]:
        """Language codes it was fine-tuned on."""
        return self.bundle.languages

    @property
    def calibration(self) -> dict[str, dict[str, float]]:
        """What makes probabilities of the scores of words; empty = it was never fitted."""
        return self.bundle.calibration

    @property
    def utterance_seconds(self) -> float | None:
        """Mean length of the utterances it was fine-tuned on (seconds); None = not known."""
        finetune = self.bundle.training.get("finetune", {})
        minutes, utterances = finetune.get("label_minutes"), finetune.get("utterances")
        if not (isinstance(minutes, int | float) and isinstance(utterances, int | float)):
            return None
        return 60 * minutes / utterances if minutes > 0 and utterances > 0 else None

    @property
    def vad(self) -> DetectorName:
        """What finds speech in the recordings that it transcribes, unless told otherwise."""
        return "silero"

    @property
    def path(self) -> Path | None:
        """The bundle's folder."""
        return self.bundle.path

    @cached_property
    def language_classifier(self) -> LanguageClassifier | None:
        """What tells its languages apart; None = it knows one, or an older version made it."""
        return None if self.path is None else LanguageClassifier.load(self.path)

    @cached_property
    def beam_search(self) -> BeamSearch | None:
        """Beam search with the bundle's language model; None when it holds none."""
        if self.path is None or not (self.path / "decoder.json").exists():
            return None
        from speechjepa.inference.language_model import load_beam_search

        return load_beam_search(self.path, self.vocabulary)

    @torch.no_grad()
    def encode(
        self, waveform: Tensor, lengths: Tensor | None = None, *, return_layers: bool = False
    ) -> EncoderOutput:
        """Return frame features.

        Args:
            waveform: (B, S) float32 in [-1, 1] at `sample_rate`.
            lengths: (B,) valid samples; None = all of them.
            return_layers: Also return every layer's output.

        Returns:
            features (B, T, D), lengths (B,), and layers when asked for.
        """
        waveform, lengths = self._check(waveform, lengths)
        return self.encoder(waveform, lengths, return_layers=return_layers)

    @torch.no_grad()
    def logits(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return CTC logits (B, T, V) float32 and their lengths (B,); arguments as `encode`.

        Raises:
            ModelError: The model has no CTC head.
        """
        waveform, lengths = self._check(waveform, lengths)
        ctc = self._ctc
        return ctc(waveform, lengths) if self._forward is None else self._forward(waveform, lengths)

    def transcribe(self, path: str | Path, **options: Any) -> dict[str, Any]:
        """Transcribe an audio file; options and result as `speechjepa.inference.transcribe`."""
        from speechjepa.inference.transcribe import transcribe

        return transcribe(self, _recording(path, "stream"), **options)

    def stream(
        self, language: str | None = None, chunk_seconds: float = 0.32, **options: Any
    ) -> Stream:
        """Return a stream to feed with audio; see `speechjepa.inference.stream.open_stream`."""
        from speechjepa.inference.stream import open_stream

        return open_stream(self, language=language, chunk_seconds=chunk_seconds, **options)

    def translate(self, path: str | Path, **options: Any) -> dict[str, Any]:
        """Translate an audio file; options and result as `speechjepa.inference.translate`."""
        from speechjepa.inference.translate import translate

        return translate(self, _recording(path, "translate_live"), **options)

    def translate_live(self, *, decoder: Decoder = "auto", **options: Any) -> LiveTranslation:
        """Return a stream to feed with audio that translates it as it comes.

        Args:
            decoder: As `SpeechTranslator` takes it.
            **options: As `speechjepa.inference.translate_stream.open_translation` takes them.

        Raises:
            ModelError: The model does not translate.
        """
        from speechjepa.inference.translate_stream import open_translation
        from speechjepa.inference.translator import SpeechTranslator

        return open_translation(SpeechTranslator(self, decoder=decoder), **options)

    def info(self) -> dict[str, Any]:
        """Return what the bundle holds: sizes, training data, languages, results, licence."""
        bundle = self.bundle
        return {
            "path": None if bundle.path is None else str(bundle.path),
            "encoder": to_dict(bundle.encoder.config),
            "parameters": num_parameters(bundle.ctc or bundle.encoder),
            "encoder_frame_seconds": self.hop / self.sample_rate,
            "frame_seconds": self.frame_seconds,
            "head": None if bundle.ctc is None else "ctc",
            "future": None if bundle.future is None else to_dict(bundle.future.predictor.config),
            "translates": self._translates(),
            "vocabulary": None if bundle.vocabulary is None else bundle.vocabulary.to_list(),
            "languages": list(bundle.languages),
            "language_model": self.path is not None and (self.path / "decoder.json").exists(),
            "training": bundle.training,
            "results": bundle.results,
            "calibration": bundle.calibration,
            "licence": bundle.licence,
        }

    def _translates(self) -> dict[str, Any] | None:
        """Return what a translation bundle translates, and how; None for any other."""
        if self.path is None or not has_translator(self.path):
            return None
        from speechjepa.inference.translator import SpeechTranslator

        found = SpeechTranslator(self)
        return {
            "from": found.files.source_language,
            "into": found.files.language,
            "writes": found.files.kind,
            "head": found.files.config.head,
            "language_model": found.has_language_model,
            "parameters": num_parameters(found.translator),
            "voice": found.voice.kind if found.has_voice else None,
        }

    @property
    def _ctc(self) -> CtcModel:
        if self.bundle.ctc is None:
            raise self._without_head(
                "was pretrained but not fine-tuned: it cannot transcribe. "
                "Fine-tune it first: `speechjepa finetune --help`"
            )
        return self.bundle.ctc

    def _without_head(self, message: str) -> ModelError:
        if self.path is not None and has_translator(self.path):
            message = "translates, and cannot transcribe: use `speechjepa translate`"
        return ModelError(f"{self._name} {message}")

    @property
    def _name(self) -> str:
        return str(self.path) if self.path is not None else "this model"

    def _check(self, waveform: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        if not isinstance(waveform, Tensor):
            raise ModelError(
                f"`waveform` must be a tensor (B, S), but is {type(waveform).__name__} instead; "
                "`torch.from_numpy(samples)[None]` makes one of one array"
            )
        if waveform.dim() != 2 or not waveform.is_floating_point():
            raise ModelError(
                "`waveform` must be (B, S) float32, "
                f"but is {tuple(waveform.shape)} {waveform.dtype} instead"
            )
        batch, size = waveform.shape
        if lengths is None:
            lengths = torch.full((batch,), size)
        lengths = torch.as_tensor(lengths)
        whole = not (lengths.is_floating_point() or lengths.dtype == torch.bool)
        if lengths.shape != (batch,) or not whole or ((lengths < 0) | (lengths > size)).any():
            raise ModelError(
                f"`lengths` must be ({batch},) whole numbers of samples between 0 and {size}, "
                f"but is {lengths.tolist()} instead"
            )
        return waveform.to(self.device, torch.float32), lengths.to(self.device, torch.int64)


def _recording(path: str | Path, live: str) -> str | Path:
    """Return a path, or say what samples are for.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(
            f"a recording is named by its path, but this is {type(path).__name__}: write samples "
            f"to a file (soundfile.write), or feed them to `model.{live}()`"
        )
    return path


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    language: str | None = None,
    compute_type: Literal["auto", "float32", "bfloat16", "int8"] | None = None,
) -> SpeechModel:
    """Load a model from its bundle folder, or from a checkpoint that others published.

    Args:
        path: The folder, or a run's folder that holds the bundle of `self_training`, `finetune`,
            `translate` or `pretrain`; a folder of `transformers`, or OWNER/NAME of the hub; a
            checkpoint file of fairseq or torchaudio; "shipped" is the model that comes with the
            package, which writes phones.
        device: "cpu", "cuda", ...
        language: Which adapter and vocabulary, of a published checkpoint with several (MMS); no
            other model has any to choose from.
        compute_type: Number format of `logits`, in a form of the network made for inference whose
            weights must not change; "auto" = the fastest, by trial. None = the network as it is.

    Raises:
        ModelError: There is no readable bundle, no such device, or no such language.
    """
    given, path = str(path), Path(path)  # a Path forgets the "./" that says it is no name
    if path == Path("shipped") and not path.exists():
        path = shipped_encoder()
    elif not path.exists() and is_hub_name(given):
        path = fetch_published(given, language)
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"the device {str(device)!r} cannot be used: {reason}") from error
    return SpeechModel(load_bundle(_bundle_of(path), language), device, compute_type)


def _bundle_of(path: Path) -> Path:
    """Return the newest bundle of a run's folder, and anything else as it is."""
    if (path / "config.json").exists():
        return path
    for stage in ("self_training", "finetune", "translate", "pretrain"):
        if (path / stage / "bundle" / "config.json").exists():
            return path / stage / "bundle"
    if any((path / name).is_file() for name in ("recipe.yaml", "state.json")):
        raise ModelError(
            f"{path}: this run has no finished model yet; the same `speechjepa run` command as "
            "before goes on with it"
        )
    return path
