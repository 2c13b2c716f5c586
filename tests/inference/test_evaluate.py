from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import Tensor

from speechjepa.audio.files import write_wav
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError, ModelError
from speechjepa.inference.evaluate import dev_set, evaluate
from speechjepa.inference.language_model import (
    LanguageModelConfig,
    attach_language_model,
    load_beam_search,
)
from speechjepa.inference.search import BeamSearch
from speechjepa.text.normalize import TextConfig
from speechjepa.text.vocabulary import Vocabulary

TEXTS = ["the cat sat", "a dog sat", "the dog", "a cat and a dog", "the cat and the dog"]
SYMBOL = 800  # samples of each symbol: its id, times 0.02, as a constant waveform


class FakeModel:
    """Reads the symbols off the waveform; hears every "t" as "d" when it is told to mishear."""

    sample_rate = 16000
    text_config = TextConfig()
    path: Path | None = None
    beam_search: BeamSearch | None = None
    calibration: Mapping[str, Mapping[str, float]] = MappingProxyType({})

    def __init__(self, vocabulary: Vocabulary, *, mishears: bool = False) -> None:
        self.vocabulary = vocabulary
        self.mishears = mishears
        self.batches: list[int] = []

    def logits(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        self.batches.append(waveform.numel())
        frames = waveform[:, SYMBOL // 2 :: SYMBOL]  # (B, L)
        token_ids = (frames / 0.02).round().long()
        spelled = torch.nn.functional.one_hot(token_ids, len(self.vocabulary)).float() * 9.0
        if self.mishears:
            d, t = self.vocabulary.encode("dt")
            spelled[..., d] = torch.maximum(
                spelled[..., d], spelled[..., t] + 1.0 * (token_ids == t)
            )
        blanks = torch.zeros_like(spelled)
        blanks[..., 0] = 9.0
        logits = torch.stack([spelled, blanks], dim=2).flatten(1, 2)  # (B, 2L, V)
        return logits, 2 * (lengths // SYMBOL)


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.build(TEXTS)


def _utterance(
    folder: Path, vocabulary: Vocabulary, name: str, said: str, text: str | None, speaker: str = "s"
) -> Utterance:
    waveform = np.repeat(0.02 * np.asarray(vocabulary.encode(said)), SYMBOL)
    write_wav(folder / f"{name}.wav", waveform)
    return Utterance(id=name, audio_path=folder / f"{name}.wav", text=text, speaker=speaker)


@pytest.fixture
def corpus(tmp_path: Path, vocabulary: Vocabulary) -> list[Utterance]:
    return [
        _utterance(tmp_path, vocabulary, f"u{index}", text, text, speaker=f"s{index % 2}")
        for index, text in enumerate(TEXTS)
    ]


def test_a_model_that_hears_all_has_no_errors(
    corpus: list[Utterance], vocabulary: Vocabulary
) -> None:
    evaluation = evaluate(FakeModel(vocabulary), corpus)
    assert (evaluation.cer, evaluation.wer, evaluation.cer_lm) == (0.0, 0.0, None)
    assert [item.id for item in evaluation.predictions] == [item.id for item in corpus]
    assert evaluation.results["cer_interval"] == [0.0, 0.0]


def test_rates_groups_and_files_hold_what_was_measured(
    tmp_path: Path, corpus: list[Utterance], vocabulary: Vocabulary
) -> None:
    out = tmp_path / "out"
    evaluation = evaluate(FakeModel(vocabulary, mishears=True), corpus, out_dir=out)
    num_t = sum(text.count("t") for text in TEXTS)
    assert evaluation.cer == pytest.approx(num_t / sum(map(len, TEXTS)))
    results = json.loads((out / "results.json").read_text())
    assert results["cer"] == evaluation.cer
    assert results["characters"]["substitutions"] == num_t
    assert results["cer_interval"][0] < results["cer"] < results["cer_interval"][1]
    assert {name: group["num_utterances"] for name, group in results["by_speaker"].items()} == {
        "s0": 3,
        "s1": 2,
    }
    assert sum(group["num_utterances"] for group in results["by_duration"].values()) == 5
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert rows[1]["reference"] == "a dog sat"
    assert rows[1]["hypothesis"] == "a dog sad"
    assert rows[1]["cer"] == pytest.approx(1 / 9)
    assert rows[1]["duration"] == pytest.approx(9 * SYMBOL / 16000)


def test_batches_are_bounded_and_do_not_change_the_result(
    corpus: list[Utterance], vocabulary: Vocabulary
) -> None:
    one_by_one, together = FakeModel(vocabulary), FakeModel(vocabulary)
    first = evaluate(one_by_one, corpus, batch_seconds=1e-3)
    second = evaluate(together, corpus, batch_seconds=2.0)
    assert first.predictions == second.predictions
    assert len(one_by_one.batches) == 5 > len(together.batches)
    assert max(together.batches) <= 2.0 * 16000


def test_unreadable_audio_is_skipped_counted_and_listed(
    tmp_path: Path, corpus: list[Utterance], vocabulary: Vocabulary
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF, and then nothing of the sort")
    broken = Utterance(id="broken", audio_path=tmp_path / "broken.wav", text="the cat")
    missing = Utterance(id="gone", audio_path=tmp_path / "gone.wav", text="a dog", duration=1.0)
    unlabelled = _utterance(tmp_path, vocabulary, "quiet", "a dog", None)
    evaluation = evaluate(FakeModel(vocabulary), [broken, *corpus, missing, unlabelled])
    assert evaluation.results["num_utterances"] == 5
    assert {item.id for item in evaluation.skipped} == {"broken", "gone"}
    assert all(item.reason for item in evaluation.skipped)
    assert evaluation.results["num_skipped"] == 2
    assert evaluation.results["num_unlabelled"] == 1
    with pytest.raises(DataError, match="broken"):
        evaluate(FakeModel(vocabulary), [broken, unlabelled])


def test_references_are_normalised_but_keep_what_the_model_cannot_write(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    utterance = _utterance(tmp_path, vocabulary, "u", "the cat", "The  Čat!")
    evaluation = evaluate(FakeModel(vocabulary), [utterance])
    assert evaluation.predictions[0].reference == "the čat"
    assert evaluation.cer == pytest.approx(1 / 7)
    assert evaluation.results["unknown_characters"] == {"č": 1}


def test_nan_logits_are_an_error(corpus: list[Utterance], vocabulary: Vocabulary) -> None:
    class Broken(FakeModel):
        def logits(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            logits, frames = super().logits(waveform, lengths)
            return logits * float("nan"), frames

    with pytest.raises(ModelError, match="NaN"):
        evaluate(Broken(vocabulary), corpus)


@pytest.mark.parametrize("kind", ["auto", "character", "word"])
def test_a_language_model_from_the_text_repairs_what_was_misheard(
    tmp_path: Path, corpus: list[Utterance], vocabulary: Vocabulary, kind: str
) -> None:
    pytest.importorskip("flashlight.lib.text.decoder")
    model = FakeModel(vocabulary, mishears=True)
    dev = dev_set(model, corpus[:4])
    decoder = attach_language_model(
        tmp_path,
        TEXTS,
        vocabulary=vocabulary,
        text_config=TextConfig(),
        config=LanguageModelConfig(kind=kind, num_trials=6),  # type: ignore[arg-type]
        dev=dev,
    )
    assert decoder is not None and decoder["tuning"]["num_utterances"] == 4
    assert len(decoder["tuning"]["trials"]) == 6
    assert decoder["text"]["dev_sentences_in_text"] == 4
    assert sorted(path.name for path in tmp_path.glob("*.arpa*")) == ["lm.arpa"]
    model.path, model.beam_search = tmp_path, load_beam_search(tmp_path, vocabulary)
    evaluation = evaluate(model, corpus)
    assert evaluation.cer_lm is not None and evaluation.cer_lm < 0.5 * evaluation.cer
    used = evaluation.results["language_model"]
    assert (used["tuned_on"], used["num_tuned_on_these_utterances"]) == ("dev", 4)
    assert evaluate(model, corpus, use_language_model=False).cer_lm is None


def test_kind_none_takes_an_old_language_model_away(tmp_path: Path, vocabulary: Vocabulary) -> None:
    for name in ("lm.arpa", "decoder.json"):
        (tmp_path / name).write_text("old")
    config = LanguageModelConfig(kind="none")
    assert (
        attach_language_model(
            tmp_path,
            TEXTS,
            vocabulary=vocabulary,
            text_config=TextConfig(),
            config=config,
            dev=None,
        )
        is None
    )
    assert load_beam_search(tmp_path, vocabulary) is None


def test_extra_text_is_normalised_and_foreign_lines_are_left_out_or_refused(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    pytest.importorskip("flashlight.lib.text.decoder")
    extra = tmp_path / "extra.txt"
    extra.write_text("The DOG, and the cat.\n\nnot ours\na hat on the dog\n", encoding="utf-8")

    def attach(config: LanguageModelConfig) -> dict[str, object]:
        decoder = attach_language_model(
            tmp_path,
            TEXTS,
            vocabulary=vocabulary,
            text_config=TextConfig(),
            config=config,
            dev=None,
        )
        assert decoder is not None
        return decoder

    decoder = attach(LanguageModelConfig(extra_text=(str(extra),)))
    text = decoder["text"]
    assert isinstance(text, dict)
    assert text["extra_text"] == [{"file": "extra.txt", "lines": 2, "left_out": 1}]
    assert text["sentences"] == len(TEXTS) + 2
    assert decoder["tuning"] == {"tuned_on": None, "utterance_ids": []}
    extra.write_text("ничего\nнашего\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"extra.txt: 2 of 2 lines .*'н'"):
        attach(LanguageModelConfig(extra_text=(str(extra),)))
    with pytest.raises(DataError, match="missing.txt"):
        attach(LanguageModelConfig(extra_text=(str(tmp_path / "missing.txt"),)))


def test_training_text_of_another_vocabulary_is_refused(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    with pytest.raises(DataError, match="'x'"):
        attach_language_model(
            tmp_path,
            ["a fox"],
            vocabulary=vocabulary,
            text_config=TextConfig(),
            config=LanguageModelConfig(),
            dev=None,
        )


def test_a_damaged_decoder_file_is_refused(tmp_path: Path, vocabulary: Vocabulary) -> None:
    for content in (
        "{",
        "{}",
        '{"format_version": 1, "beam": {"unknown": 1}}',
        '{"format_version": 1, "language_model": "lm.arpa", "beam": {"lm_weight": "high"}}',
    ):
        (tmp_path / "decoder.json").write_text(content)
        with pytest.raises(ModelError, match="decoder.json"):
            load_beam_search(tmp_path, vocabulary)
