"""Give a bundle a language model: build it from text, tune its weights on dev, store both."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from speechjepa.config import from_dict
from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.inference.search import MAX_KENLM_ORDER, BeamConfig, BeamSearch
from speechjepa.inference.tuning import Tuning, as_dict, tune_beam
from speechjepa.text.ngram import NgramModel, estimate_ngram
from speechjepa.text.normalize import TextConfig, normalize_text
from speechjepa.text.vocabulary import WORD_BOUNDARY, Vocabulary

LM_FILE, DECODER_FILE = "lm.arpa", "decoder.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """What the language model is built from, and how its weights are found."""

    kind: Literal["auto", "character", "word", "none"] = "auto"
    """`character` can write any word; `word` only those of its text; `auto` builds the first, and
    the second too where dev has few words that the text lacks, and keeps the better on dev."""
    order_characters: int = 6
    """Length of the longest n-grams of characters; KenLM's wheel reads at most 6."""
    order_words: int = 3
    """Length of the longest n-grams of words, at most 6."""
    extra_text: tuple[str, ...] = ()
    """Text files (UTF-8, one sentence per line) used beside the transcripts of the training set."""
    max_unknown_words: float = 0.05
    """Greatest fraction of dev's words absent from the text at which `auto` tries words."""
    num_trials: int = 30
    """Settings of the beam search tried on dev, for each kind (30 or more are worth it at minutes
    of labels)."""
    max_tuning_utterances: int = 100
    """Utterances of dev used for tuning, drawn at random; decoding takes about 20 ms for each and
    trial."""
    metric: Literal["cer", "wer"] = "cer"
    """What tuning minimises."""
    beam_size: int = 32
    """Hypotheses kept after each frame."""
    seed: int = 0
    """Of the draws of utterances and weights."""

    def __post_init__(self) -> None:
        for name in ("order_characters", "order_words"):
            order = getattr(self, name)
            if not 2 <= order <= MAX_KENLM_ORDER:
                raise ConfigError(
                    f"`{name}` must be between 2 and {MAX_KENLM_ORDER}, but is {order} instead"
                )
        if self.num_trials < 2 or self.max_tuning_utterances < 1:
            raise ConfigError(
                "`num_trials` must be at least 2 and `max_tuning_utterances` at least 1, but are "
                f"{self.num_trials} and {self.max_tuning_utterances} instead"
            )


@dataclass(frozen=True, kw_only=True)
class DevSet:
    """Transcribed utterances that the weights are tuned on, with the model's logits for them."""

    ids: Sequence[str]
    logits: Sequence[NDArray[np.float32]]
    """One (T, V) array per utterance."""
    references: Sequence[str]
    """Normalised transcripts."""
    name: str = "dev"
    """What to call the set in results."""


@dataclass(frozen=True, kw_only=True)
class _Text:
    """The sentences a language model is built from, and where they came from."""

    sentences: list[str]
    extra: list[dict[str, Any]]
    """Name, lines used and lines left out of each extra file."""


def attach_language_model(
    bundle_dir: str | Path,
    texts: Sequence[str],
    *,
    vocabulary: Vocabulary,
    text_config: TextConfig,
    config: LanguageModelConfig,
    dev: DevSet | None,
) -> dict[str, Any] | None:
    """Build a language model, tune it and write `lm.arpa` and `decoder.json` into a bundle.

    Args:
        bundle_dir: The folder of the fine-tuned model.
        texts: Normalised transcripts of the training set (never of dev).
        vocabulary: The model's symbols.
        text_config: How extra text is normalised.
        config: What to build.
        dev: What to tune on; without it the untuned defaults are stored, and said so.

    Returns:
        The content of decoder.json; None with `kind: none`, which also takes away the files of a
        language model that was there before.

    Raises:
        DataError: Text holds symbols that the vocabulary lacks, or cannot be read.
        ModelError: flashlight-text is not installed.
    """
    bundle_dir = Path(bundle_dir)
    if config.kind == "none":
        for name in (LM_FILE, DECODER_FILE):
            (bundle_dir / name).unlink(missing_ok=True)
        return None
    text = _gather(texts, vocabulary, text_config, config)
    subset = _subset(dev, config)
    candidates = []
    for kind in _kinds(text, subset, config):
        path = bundle_dir / f"{LM_FILE}.{kind}"
        model = _estimate(text, kind, vocabulary, config)
        model.write_arpa(path)
        search = BeamSearch(vocabulary, path, BeamConfig(kind=kind, beam_size=config.beam_size))
        tuning = _tune(search, subset, config)
        candidates.append((kind, path, model, search.config, tuning))
    best = min(candidates, key=lambda c: _error(c[-1], config.metric))
    kind, path, model, beam, tuning = best
    path.replace(bundle_dir / LM_FILE)
    for _, other, *_ in candidates:
        other.unlink(missing_ok=True)
    decoder = {
        "format_version": FORMAT_VERSION,
        "language_model": LM_FILE,
        "beam": asdict(tuning.config if tuning else beam),
        "text": _describe_text(text, texts, model, kind, subset),
        "tuning": _describe_tuning(subset, tuning, config),
    }
    content = json.dumps(decoder, ensure_ascii=False, indent=1)
    (bundle_dir / DECODER_FILE).write_text(content + "\n", encoding="utf-8")
    return decoder


def load_beam_search(bundle_dir: str | Path, vocabulary: Vocabulary) -> BeamSearch | None:
    """Return the tuned beam search of a bundle, None where it has no language model.

    Raises:
        ModelError: decoder.json cannot be read, or the language model is not for this vocabulary.
    """
    path = Path(bundle_dir) / DECODER_FILE
    if not path.exists():
        return None
    decoder = read_decoder(bundle_dir)
    try:
        config = from_dict(BeamConfig, decoder["beam"], where=DECODER_FILE)
        lm_path = Path(bundle_dir) / Path(decoder["language_model"]).name
    except (ConfigError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: its settings cannot be used ({error}); build the language model again"
        ) from error
    return BeamSearch(vocabulary, lm_path, config)


def read_decoder(bundle_dir: str | Path) -> dict[str, Any]:
    """Return the content of a bundle's decoder.json: weights, text, and what they were tuned on."""
    path = Path(bundle_dir) / DECODER_FILE
    try:
        decoder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: it cannot be read: {error}") from error
    version = decoder.get("format_version") if isinstance(decoder, dict) else None
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{path}: format version {version} is not {FORMAT_VERSION}, the one this release "
            "reads; build the language model again"
        )
    return decoder


def _gather(
    texts: Sequence[str],
    vocabulary: Vocabulary,
    text_config: TextConfig,
    config: LanguageModelConfig,
) -> _Text:
    unknown = sorted({c for text in texts for c in text if c not in vocabulary})
    if unknown:
        raise DataError(
            f"the training text holds {unknown}, which the model's vocabulary lacks: the language "
            "model must be built from the text the model was fine-tuned on"
        )
    sentences = [" ".join(text.split()) for text in texts]
    extra = []
    for name in config.extra_text:
        kept, num_left_out = _read_extra(Path(name), vocabulary, text_config)
        sentences += kept
        extra.append({"file": Path(name).name, "lines": len(kept), "left_out": num_left_out})
    return _Text(sentences=[sentence for sentence in sentences if sentence], extra=extra)


def _read_extra(
    path: Path, vocabulary: Vocabulary, text_config: TextConfig
) -> tuple[list[str], int]:
    """Return the normalised lines the model can write, and how many it cannot."""
    kept: list[str] = []
    strange: Counter[str] = Counter()
    num_left_out = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                text = normalize_text(line, text_config)
                unknown = {c for c in text if c not in vocabulary}
                strange.update(unknown)
                if unknown:
                    num_left_out += 1
                elif text:
                    kept.append(text)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the text cannot be read as UTF-8: {error}", path=path) from error
    if num_left_out > len(kept):
        names = [character for character, _ in strange.most_common(20)]
        raise DataError(
            f"{num_left_out} of {num_left_out + len(kept)} lines hold characters that the model's "
            f"vocabulary lacks: {names}; give text in the orthography of the transcripts, or map "
            "them with `text.replacements`",
            path=path,
        )
    return kept, num_left_out


def _kinds(
    text: _Text, dev: DevSet | None, config: LanguageModelConfig
) -> list[Literal["character", "word"]]:
    if config.kind == "character" or config.kind == "word":
        return [config.kind]
    if dev is None:
        return ["character"]
    unknown = _unknown_words(text, dev)
    return ["character", "word"] if unknown <= config.max_unknown_words else ["character"]


def _unknown_words(text: _Text, dev: DevSet) -> float:
    """Return the fraction of dev's words that the text lacks."""
    known = {word for sentence in text.sentences for word in sentence.split()}
    words = [word for reference in dev.references for word in reference.split()]
    return sum(word not in known for word in words) / max(1, len(words))


def _symbols(sentence: str, kind: str) -> list[str]:
    return sentence.split() if kind == "word" else list(sentence.replace(" ", WORD_BOUNDARY))


def _estimate(
    text: _Text, kind: str, vocabulary: Vocabulary, config: LanguageModelConfig
) -> NgramModel:
    sequences = (_symbols(sentence, kind) for sentence in text.sentences)
    if kind == "word":
        return estimate_ngram(sequences, config.order_words)
    return estimate_ngram(sequences, config.order_characters, words=vocabulary.symbols[1:])


def _subset(dev: DevSet | None, config: LanguageModelConfig) -> DevSet | None:
    if dev is None or not len(dev.logits):
        return None
    if not len(dev.ids) == len(dev.logits) == len(dev.references):
        raise ValueError(
            "`ids`, `logits` and `references` must have the same length, but have "
            f"{len(dev.ids)}, {len(dev.logits)} and {len(dev.references)} instead"
        )
    generator = np.random.default_rng(config.seed)
    drawn = sorted(generator.permutation(len(dev.ids))[: config.max_tuning_utterances].tolist())
    return DevSet(
        ids=[dev.ids[index] for index in drawn],
        logits=[dev.logits[index] for index in drawn],
        references=[dev.references[index] for index in drawn],
        name=dev.name,
    )


def _tune(search: BeamSearch, dev: DevSet | None, config: LanguageModelConfig) -> Tuning | None:
    if dev is None:
        return None
    return tune_beam(
        search,
        dev.logits,
        dev.references,
        num_trials=config.num_trials,
        seed=config.seed,
        metric=config.metric,
    )


def _error(tuning: Tuning | None, metric: str) -> float:
    return 0.0 if tuning is None else float(getattr(tuning.best, metric))


def _describe_text(
    text: _Text, texts: Sequence[str], model: NgramModel, kind: str, dev: DevSet | None
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "order": model.order,
        "sentences": len(text.sentences),
        "symbols": sum(len(_symbols(sentence, kind)) for sentence in text.sentences),
        "vocabulary": len(model.words) - 3,
        "training_transcripts": len(texts),
        "extra_text": text.extra,
        "orders_with_fallback_discounts": [
            order for order, table in enumerate(model.tables, start=1) if table.is_fallback
        ],
    }
    if dev is not None:
        sentences = set(text.sentences)
        described["dev_perplexity"] = model.perplexity(
            _symbols(reference, kind) for reference in dev.references
        )
        described["dev_unknown_words"] = _unknown_words(text, dev)
        described["dev_sentences_in_text"] = sum(ref in sentences for ref in dev.references)
    return described


def _describe_tuning(
    dev: DevSet | None, tuning: Tuning | None, config: LanguageModelConfig
) -> dict[str, Any]:
    if dev is None or tuning is None:
        return {"tuned_on": None, "utterance_ids": []}
    return {
        "tuned_on": dev.name,
        "num_utterances": len(dev.ids),
        "metric": config.metric,
        "seed": config.seed,
        **as_dict(tuning),
        "utterance_ids": list(dev.ids),
    }
