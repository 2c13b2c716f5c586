"""`--language auto`: learnt from labelled languages, heard with a probability, refused plainly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from speechjepa.audio.files import write_wav
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError, ModelError
from speechjepa.inference.spoken_language import (
    hear_language,
    learn_languages,
    resolve_language,
)
from speechjepa.inference.transcribe import TranscribeConfig, check_options, transcribe
from speechjepa.inference.transcribe_files import transcribe_files
from speechjepa.models.encoder import EncoderOutput
from speechjepa.models.language_classifier import LanguageClassifier, pool_features
from tests.tone_model import ToneModel, synthesize, write

LETTERS = {"de": "abcd", "fi": "efgh"}


class Polyglot(ToneModel):
    """Hears tones; its features are the letters, so languages differ in which they use."""

    languages = ("de", "fi")
    language_classifier = None

    def encode(self, waveform, lengths=None):
        lengths = torch.tensor([waveform.shape[1]]) if lengths is None else lengths
        logits, frames = self.logits(waveform, lengths)
        return EncoderOutput(features=logits / 10, lengths=frames)


def corpus(folder: Path, per_language=12, speakers=4) -> list[Utterance]:
    """Make words of the letters of each language, now and then with a foreign one."""
    generator = np.random.default_rng(0)
    made = []
    for language, letters in LETTERS.items():
        for number in range(per_language):
            said = "".join(generator.choice(list(letters), 6)) + generator.choice(list("abcdefgh"))
            path = folder / f"{language}-{number}.wav"
            write_wav(path, synthesize(said))
            speaker = f"{language}-{number % speakers}"
            made.append(
                Utterance(id=path.stem, audio_path=path, language=language, speaker=speaker)
            )
    return made


def test_pooling_hears_neither_padding_nor_the_rest_of_the_batch() -> None:
    features = torch.randn(2, 7, 3)
    pooled = pool_features(features, torch.tensor([7, 4]))
    alone = pool_features(features[1:, :4], torch.tensor([4]))
    torch.testing.assert_close(pooled[1], alone[0])
    torch.testing.assert_close(pooled[0, :3], features[0].mean(dim=0))
    torch.testing.assert_close(pooled[0, 3:], features[0].std(dim=0, correction=0))


def test_languages_are_told_apart_with_a_probability(tmp_path: Path) -> None:
    model = Polyglot()
    model.language_classifier, found = learn_languages(model, corpus(tmp_path))
    assert found["accuracy_other_half"] > 0.9
    assert found["utterances"] == {"de": 12, "fi": 12}
    assert found["one_speaker"] == []
    for code, letters in LETTERS.items():
        path = write(tmp_path / f"new-{code}.wav", synthesize(letters[::-1] * 3))
        result = transcribe(model, path, language="auto")
        assert result["language"] == code
        assert 0.8 < result["language_probability"] <= 1
    mixed = write(tmp_path / "both.wav", synthesize("abcdefgh"))
    between = dict(hear_language(model, model.language_classifier, mixed))
    assert sum(between.values()) == pytest.approx(1)
    assert max(between.values()) < result["language_probability"]
    assert "language_probability" not in transcribe(model, mixed, language="de")


def test_two_languages_by_one_speaker_each_are_named(tmp_path: Path) -> None:
    _, found = learn_languages(Polyglot(), corpus(tmp_path, speakers=1))
    assert found["one_speaker"] == ["de", "fi"]


def test_a_damaged_recording_is_left_out_of_what_is_learnt(tmp_path: Path) -> None:
    utterances = corpus(tmp_path)
    (tmp_path / "de-0.wav").write_bytes(b"RIFF")
    _, found = learn_languages(Polyglot(), utterances)
    assert found["utterances"] == {"de": 11, "fi": 12}
    with pytest.raises(DataError, match="at least two"):
        learn_languages(Polyglot(), [u for u in utterances if u.language == "fi"])
    with pytest.raises(DataError, match="at least two"):
        learn_languages(Polyglot(), [replace(u, language=None) for u in utterances])


def test_a_model_of_one_language_says_that_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", synthesize("abc"))
    result = transcribe(ToneModel(), path, language="auto")
    assert result["language"] == "xx"
    assert "language_probability" not in result


def test_a_model_that_cannot_tell_refuses_before_the_first_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", synthesize("abc"))
    with pytest.raises(ModelError, match="cannot tell de, fi apart: name one"):
        next(transcribe_files(Polyglot(), [path], language="auto"))
    with pytest.raises(ModelError, match="does not say which languages"):
        resolve_language("auto", ())


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    model = Polyglot()
    model.language_classifier, _ = learn_languages(model, corpus(tmp_path))
    (tmp_path / "0.wav").write_bytes(b"nothing to hear")
    paths = [tmp_path / "0.wav", tmp_path / "fi-0.wav"]
    check_options(model, TranscribeConfig(language="auto"))
    bad, good = transcribe_files(model, paths, language="auto")
    assert (bad.status, good.status) == ("failed", "done")
    assert good.result["language"] == "fi"


def test_a_classifier_travels_in_its_bundle(tmp_path: Path) -> None:
    made = LanguageClassifier(["de", "fi"], torch.randn(2, 6), torch.randn(2))
    made.save(tmp_path)
    again = LanguageClassifier.load(tmp_path)
    assert again.languages == ("de", "fi")
    x = torch.randn(4, 6)
    assert torch.equal(again.probabilities(x), made.probabilities(x))
    assert again.probabilities(x).sum(dim=1).tolist() == pytest.approx([1] * 4)
    (tmp_path / "language.safetensors").write_bytes(b"{}")
    with pytest.raises(ModelError, match="cannot be read"):
        LanguageClassifier.load(tmp_path)
    assert LanguageClassifier.load(tmp_path / "none") is None
