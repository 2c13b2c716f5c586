"""Which language is spoken: as it was asked for, or as it is heard (`--language auto`)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechjepa.audio.files import stream_audio
from speechjepa.data.utterance import Utterance
from speechjepa.errors import AudioError, DataError, ModelError
from speechjepa.inference.recognise import read_utterance
from speechjepa.models.encoder import EncoderOutput
from speechjepa.models.language_classifier import LanguageClassifier, pool_features
from speechjepa.text.languages import is_known, match_language, nearest_languages, standard_tag

logger = logging.getLogger(__name__)

AUTO = "auto"
PIECE_SECONDS = 10.0
"""The language is heard in pieces of this length (seconds), about what it was learnt from."""
MAX_PIECES = 6
"""How many of them are listened to, from the beginning of a recording."""
SHORTEST_SECONDS = 0.5
"""A last piece shorter than this is left out where there are others (seconds)."""
MAX_UTTERANCES = 300
"""Of each language, to learn from."""
_TEMPERATURES = np.geomspace(0.5, 20.0, 60)


class Encodes(Protocol):
    """What hears languages."""

    @property
    def sample_rate(self) -> int: ...

    def encode(self, waveform: Tensor, lengths: Tensor | None = None) -> EncoderOutput: ...


class KnowsLanguages(Protocol):
    """What may be asked which language is spoken."""

    @property
    def languages(self) -> Sequence[str]: ...


@dataclass(frozen=True, kw_only=True)
class SpokenLanguage:
    """The language of a recording."""

    code: str | None
    """One of the model's; None = it does not say."""
    probability: float | None = None
    """Where it was heard and not given."""


def resolve_language(language: str | None, known: Sequence[str]) -> str | None:
    """Return the model's code of a language, so that a wrong one is never taken silently.

    Args:
        language: A code such as `sw`, `swh_Latn` or `sw-KE`, or an English name; None or "auto" =
            the model's only one, if so.
        known: The model's languages; empty = the model does not say, and any that there is is
            taken.

    Raises:
        ModelError: The model was not trained on this language, or cannot say which it is; or there
            is no such language.
    """
    if language is None:
        return known[0] if len(known) == 1 else None
    if language == AUTO:
        if len(known) == 1:
            return known[0]
        raise ModelError(_cannot_tell(known))
    if not known:
        if is_known(language):
            return standard_tag(language) or language
        raise ModelError(
            f"{language!r} is neither the code of a language (ISO 639, such as sw or mdw) nor the "
            "English name of one; x-NAME is for a language without a code"
        )
    found = match_language(language, known)
    if found is not None:
        return found
    close = nearest_languages(language, known)
    raise ModelError(
        f"this model does not transcribe {language!r}"
        + (f"; did you mean {' or '.join(close)}?" if close else ".")
        + f" It was trained on: {', '.join(sorted(known))}."
    )


def _cannot_tell(known: Sequence[str]) -> str:
    if not known:
        return "this model does not say which languages it knows, so none can be found: name it"
    return (
        f"this model cannot tell {', '.join(sorted(known))} apart: name one with --language. A "
        "recipe whose labelled utterances carry several languages teaches it to."
    )


def check_language(model: KnowsLanguages, asked: str | None) -> None:
    """Check that a model knows a language, or can hear which it is.

    Raises:
        ModelError: It does not, or cannot.
    """
    if asked != AUTO or _classifier(model) is None:
        resolve_language(asked, model.languages)


def find_language(
    model: KnowsLanguages, path: str | PathLike[str], asked: str | None
) -> SpokenLanguage:
    """Return the language of a recording: as asked for, or with "auto" as it is heard.

    Raises:
        AudioError: The recording cannot be read.
        ModelError: The model does not know the language, or cannot hear it.
    """
    classifier = _classifier(model)
    if asked != AUTO or classifier is None:
        return SpokenLanguage(code=resolve_language(asked, model.languages))
    ranked = hear_language(model, classifier, path)  # type: ignore[arg-type]
    code, probability = ranked[0]
    return SpokenLanguage(code=code, probability=round(probability, 4))


def can_hear_language(model: KnowsLanguages) -> bool:
    """Whether "auto" is a language that may be asked for."""
    return _classifier(model) is not None


def _classifier(model: KnowsLanguages) -> LanguageClassifier | None:
    """Return what a model tells languages apart by; of one language there is nothing to tell."""
    found: LanguageClassifier | None = getattr(model, "language_classifier", None)
    return found if len(model.languages) > 1 else None


def hear_language(
    model: Encodes, classifier: LanguageClassifier, path: str | PathLike[str]
) -> list[tuple[str, float]]:
    """Return languages and their probabilities, the likeliest first.

    The mean of what each of the first MAX_PIECES pieces says.
    """
    pieces: list[NDArray[np.float32]] = []
    for piece in stream_audio(path, sample_rate=model.sample_rate, block_seconds=PIECE_SECONDS):
        if pieces and len(piece) < SHORTEST_SECONDS * model.sample_rate:
            break
        pieces.append(piece)
        if len(pieces) == MAX_PIECES:
            break
    pooled = torch.stack([pooled_utterance(model, piece) for piece in pieces])  # (pieces, 2D)
    mean = classifier.probabilities(pooled).mean(dim=0)
    ranked = zip(classifier.languages, mean.tolist(), strict=True)
    return sorted(ranked, key=lambda pair: -pair[1])


def pooled_utterance(model: Encodes, waveform: NDArray[np.float32]) -> Tensor:
    """Return the pooled features (2D,) of a waveform (S,)."""
    shortest = round(0.1 * model.sample_rate)  # every encoder makes a frame of it
    padded = np.pad(waveform, (0, max(0, shortest - len(waveform))))
    output = model.encode(torch.from_numpy(padded)[None])
    return pool_features(output.features.float(), output.lengths)[0].cpu()


def learn_languages(
    model: Encodes, utterances: Iterable[Utterance], *, seed: int = 0
) -> tuple[LanguageClassifier, dict[str, Any]]:
    """Fit a classifier on utterances that carry their language; transcripts are not needed.

    Its probabilities are cooled by the temperature that suits speakers it was not fitted on: the
    speakers of each language are divided in two (its utterances, where it has a single speaker),
    and each half is heard by what was fitted on the other.

    Args:
        model: Whose encoder hears them.
        utterances: Of two languages or more; up to MAX_UTTERANCES of each are drawn.
        seed: Of the draw.

    Returns:
        The classifier, and {"accuracy_other_half", "utterances", "one_speaker"}: languages with
        one speaker cannot be told from his voice or microphone, and are named.

    Raises:
        DataError: There are fewer than two languages that can be read.
    """
    by_language: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        if utterance.language:
            by_language[utterance.language].append(utterance)
    rows: list[Tensor] = []
    labels: list[int] = []
    halves: list[bool] = []
    languages = sorted(by_language)
    generator = np.random.default_rng(seed)
    single = []
    for number, language in enumerate(languages):
        members = by_language[language]
        drawn = generator.permutation(len(members))[:MAX_UTTERANCES]
        speakers = sorted({members[index].speaker or "" for index in drawn})
        if len(speakers) == 1:
            single.append(language)
        for place, index in enumerate(drawn):
            try:
                waveform = read_utterance(members[index], model.sample_rate)
            except AudioError as error:
                logger.warning("%s", error)
                continue
            rows.append(
                pooled_utterance(model, waveform[: round(PIECE_SECONDS * model.sample_rate)])
            )
            labels.append(number)
            speaker = speakers.index(members[index].speaker or "")
            halves.append(bool((speaker if len(speakers) > 1 else place) % 2))
    if len(set(labels)) < 2:
        raise DataError("telling languages apart needs audio of at least two; label it with them")
    x, y, odd = torch.stack(rows).numpy(), np.array(labels), np.array(halves)
    logits = np.full((len(y), len(languages)), -np.inf)
    for half in (odd, ~odd):
        if len(set(y[~half])) == len(languages):
            weight, bias = _logistic(x[~half], y[~half])
            logits[half] = x[half] @ weight.T + bias
    heard = np.isfinite(logits).all(axis=1)
    temperature = _temperature(logits[heard], y[heard]) if heard.any() else 1.0
    weight, bias = _logistic(x, y)
    made = LanguageClassifier(
        languages, torch.from_numpy(weight / temperature), torch.from_numpy(bias / temperature)
    )
    right = logits[heard].argmax(axis=1) == y[heard]
    return made, {
        "accuracy_other_half": float(right.mean()) if heard.any() else None,
        "utterances": {language: labels.count(n) for n, language in enumerate(languages)},
        "one_speaker": single,
    }


def _logistic(
    x: NDArray[np.float32], y: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weight (N, 2D) and bias (N,) of a multinomial logistic regression on raw features."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    fitted = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000)
    fitted.fit((x - mean) / scale, y)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:  # two classes are told by one row
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scale
    return weight, bias - weight @ mean


def _temperature(logits: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """Return the temperature under which what is true is likeliest (Guo et al., 2017)."""
    truth = torch.from_numpy(y)

    def loss(temperature: float) -> float:
        scores = torch.from_numpy(logits / temperature)
        return float(torch.nn.functional.cross_entropy(scores, truth))

    return float(min(_TEMPERATURES, key=loss))
