"""Units are found with a language model of units: what it puts right, and what it leaves alone."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from speechjepa.audio.files import write_wav
from speechjepa.cli.main import main
from speechjepa.data.synthetic.espeak import synthesise
from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.inference.model import SpeechModel, load
from speechjepa.inference.search import BeamConfig, BeamSearch, greedy_decode
from speechjepa.inference.translate import FileTranslator, TranslateConfig
from speechjepa.inference.translate_stream import UtteranceStream
from speechjepa.inference.translator import SpeechTranslator
from speechjepa.inference.translator_language_model import (
    Part,
    PartData,
    TokenModelConfig,
    UnitSymbols,
    attach_token_models,
)
from speechjepa.text.ngram import NgramModel, estimate_ngram
from tests.translation_bundle import NUM_UNITS, bundle

needs_flashlight = pytest.mark.usefixtures("flashlight")
SYMBOLS = UnitSymbols(NUM_UNITS)
# Token ids; 1 is unit 0. After 1 2 always comes 3, after 2 1 always 4.
TRAIN = [[1, 2, 3], [2, 1, 4], [1, 2, 3, 1, 2, 3], [2, 1, 4, 2, 1, 4]] * 3
RIGHT, WRONG = [1, 2, 3], [1, 2, 4]


@pytest.fixture
def flashlight() -> None:
    pytest.importorskip("flashlight.lib.text.decoder")


@pytest.fixture
def model() -> NgramModel:
    names = ([SYMBOLS.symbols[token] for token in tokens] for tokens in TRAIN)
    return estimate_ngram(names, 4, words=SYMBOLS.symbols[1:])


@pytest.fixture
def arpa(tmp_path: Path, model: NgramModel) -> Path:
    model.write_arpa(tmp_path / "units.arpa")
    return tmp_path / "units.arpa"


def sure(tokens: Sequence[int]) -> Tensor:
    """Logits (T, V) with two frames for each token and a blank after it."""
    path = [frame for token in tokens for frame in (token, token, 0)]
    return 9.0 * torch.nn.functional.one_hot(torch.tensor(path), len(SYMBOLS)).float()


def doubtful() -> Tensor:
    """Logits whose best path is `WRONG`, by little, and whose second best is `RIGHT`."""
    logits = sure(WRONG)
    logits[6:8, 3] = 8.5
    return logits


def decode(search: BeamSearch, logits: Tensor) -> list[int]:
    (found,) = search.decode(logits[None], torch.tensor([len(logits)]))
    return list(found.token_ids)


def greedy(logits: Tensor) -> list[int]:
    (found,) = greedy_decode(logits[None], torch.tensor([len(logits)]), SYMBOLS)
    return list(found.token_ids)


@needs_flashlight
def test_the_language_model_puts_right_what_the_best_path_gets_wrong(arpa: Path) -> None:
    search = BeamSearch(SYMBOLS, arpa, BeamConfig(lm_weight=1.5))
    assert greedy(doubtful()) == WRONG and decode(search, doubtful()) == RIGHT
    assert decode(search.with_config(BeamConfig(lm_weight=0.0)), doubtful()) == WRONG
    assert decode(search, sure(WRONG)) == WRONG  # the frames are sure enough


@needs_flashlight
@pytest.mark.parametrize("seed", range(3))
def test_without_one_the_search_finds_the_likeliest_units(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = (1.5 * torch.randn(6, 5, generator=generator)).log_softmax(dim=-1)
    totals: dict[str, float] = {}
    for path in itertools.product(range(5), repeat=6):
        score = math.exp(float(log_probs[torch.arange(6), list(path)].sum()))
        text = SYMBOLS.decode_ctc(path)
        totals[text] = totals.get(text, 0.0) + score
    search = BeamSearch(
        SYMBOLS, None, BeamConfig(lm_weight=0.0, beam_size=1000, beam_threshold=100.0)
    )
    (found,) = search.decode(log_probs[None], torch.tensor([6]))
    assert found.text == max(totals, key=lambda text: totals[text])
    assert found.score == pytest.approx(math.log(totals[found.text]), abs=1e-4)


@needs_flashlight
@pytest.mark.parametrize("first", range(1, NUM_UNITS + 1))
def test_every_unit_counts_in_the_language_model_the_first_one_too(
    arpa: Path, model: NgramModel, first: int
) -> None:
    tokens = [first, 2 if first != 2 else 1]
    logits = 30.0 * sure(tokens)  # one path alone has any probability, which is 1
    search = BeamSearch(SYMBOLS, arpa, BeamConfig(lm_weight=2.0))
    (found,) = search.decode(logits[None], torch.tensor([len(logits)]))
    expected = 2.0 * model.sentence_log10_prob([SYMBOLS.symbols[token] for token in tokens])
    assert list(found.token_ids) == tokens
    assert found.score == pytest.approx(expected, abs=1e-3)


@needs_flashlight
def test_times_are_those_of_the_best_path_where_both_agree(arpa: Path) -> None:
    logits = sure([1, 2, 3, 3, 1])[None]
    lengths = torch.tensor([logits.shape[1]])
    (found,) = BeamSearch(SYMBOLS, arpa, BeamConfig()).decode(logits, lengths)
    (best,) = greedy_decode(logits, lengths, SYMBOLS)
    assert (found.token_ids, found.frames) == (best.token_ids, best.frames)
    assert found.frames == (0, 3, 6, 9, 12)


@needs_flashlight
def test_units_have_no_words(arpa: Path) -> None:
    with pytest.raises(ConfigError, match="over words needs characters"):
        BeamSearch(SYMBOLS, arpa, BeamConfig(kind="word"))


# Bundles


def data(logits: Tensor | None = None, reference: Sequence[int] = RIGHT) -> PartData:
    logits = doubtful() if logits is None else logits
    return PartData(symbols=SYMBOLS, train=TRAIN, logits=[logits], references=[reference])


@needs_flashlight
def test_the_weights_are_those_with_the_fewest_errors_on_dev(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", voice=False)
    config = TokenModelConfig(order=4, lm_weights=(0.0, 1.5), blank_scores=(0.0, -1.0))
    entry = attach_token_models(folder, {"tokens": data()}, config)["tokens"]
    assert entry["is_used"] and entry["beam"]["lm_weight"] == 1.5
    tuning = entry["tuning"]
    assert (tuning["error_rate_best_path"], tuning["error_rate"]) == (pytest.approx(1 / 3), 0.0)
    assert [trial["error_rate"] for trial in tuning["trials"]][:1] == [pytest.approx(1 / 3)]
    assert SpeechTranslator(load(folder)).has_language_model
    assert not SpeechTranslator(load(folder), decoder="greedy").has_language_model


@needs_flashlight
def test_one_that_does_not_help_is_not_kept(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", voice=False)
    attach_token_models(folder, {"tokens": data()}, TokenModelConfig(order=4))
    assert (folder / "translator/lm.arpa").is_file()
    as_good = {"tokens": data(sure(WRONG), WRONG)}
    content = attach_token_models(folder, as_good, TokenModelConfig(order=4))
    assert not content["tokens"]["is_used"]
    assert {path.name for path in (folder / "translator").iterdir()} == {
        *("config.json", "model.safetensors", "decoder.json")
    }
    translator = SpeechTranslator(load(folder))
    assert not translator.has_language_model
    with pytest.raises(ModelError, match="no language model for beam search"):
        SpeechTranslator(translator.model, decoder="beam")


@pytest.fixture
def tuned(tmp_path: Path, flashlight: None) -> SpeechModel:
    """A model whose units and text are both found with a language model."""
    model = load(bundle(tmp_path / "tuned", voice=False))
    assert model.path is not None
    letters = SpeechTranslator(model).files.text_vocabulary
    assert letters is not None
    text = PartData(
        symbols=letters,
        train=[letters.encode("ab ba"), letters.encode("abc abc")],
        logits=[torch.zeros(3, 5)],
        references=[letters.encode("a")],
    )
    parts: dict[Part, PartData] = {"tokens": data(), "text": text}
    config = TokenModelConfig(order=3, lm_weights=(1.5,), blank_scores=(0.0,))
    attach_token_models(model.path, parts, config)
    path = model.path / "translator/decoder.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["text"]["is_used"] == (model.path / "translator/text_lm.arpa").is_file()
    return load(model.path)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return synthesise("uno dos tres cuatro", "es").waveform


def test_a_translation_with_a_language_model_has_times_in_order_and_text(
    tuned: SpeechModel, speech: np.ndarray
) -> None:
    (found,) = SpeechTranslator(tuned).translate([speech])
    (best_path,) = SpeechTranslator(tuned, decoder="greedy").translate([speech])
    assert found.units != best_path.units and found.text is not None
    assert found.times is not None and len(found.times) == len(found.units)
    assert list(found.times) == sorted(set(found.times))
    assert 0 < found.times[0] and found.times[-1] <= len(speech) / 16000 + 0.05
    assert 0 < found.score <= best_path.score <= 1


def test_what_else_is_in_the_batch_changes_no_search(
    tuned: SpeechModel, speech: np.ndarray
) -> None:
    translator = SpeechTranslator(tuned)
    waveforms = [speech, speech[:9000], speech[4000:]]
    for found, waveform in zip(translator.translate(waveforms), waveforms, strict=True):
        (alone,) = translator.translate([waveform])
        assert (found.units, found.times, found.text) == (alone.units, alone.times, alone.text)


def test_a_bundle_without_one_is_decoded_by_the_best_path(
    tmp_path: Path, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flashlight.lib.text", None)
    translator = SpeechTranslator(load(bundle(tmp_path / "b", voice=False)))
    assert not translator.has_language_model
    found = translator.logits(torch.from_numpy(speech))
    assert translator.files.text_vocabulary is not None and found.text_logits is not None
    (written,) = translator.translate([speech])
    assert [unit + 1 for unit in written.units] == greedy(found.logits[0])
    path = found.text_logits[0].argmax(dim=-1).tolist()
    assert written.text == translator.files.text_vocabulary.decode_ctc(path)
    best = found.logits[0].softmax(dim=-1).max(dim=-1)
    tokens = best.indices.tolist()
    starts = [
        frame
        for frame, token in enumerate(tokens)
        if token and (frame == 0 or token != tokens[frame - 1])
    ]
    assert written.score == pytest.approx(float(best.values[starts].mean()), abs=1e-6)


def test_missing_flashlight_names_the_extra_and_greedy_needs_none(
    tuned: SpeechModel, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flashlight.lib.text", None)
    assert tuned.info()["translates"]["language_model"]
    with pytest.raises(ModelError, match=r'pip install "speechjepa\[lm\]"`, or decode greedily'):
        SpeechTranslator(tuned).translate([speech])
    assert SpeechTranslator(tuned, decoder="greedy").translate([speech])[0].units


def test_a_file_is_not_heard_before_the_language_model_was_read(
    tuned: SpeechModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tuned.path is not None
    (tuned.path / "translator/lm.arpa").unlink()
    for open_it in (FileTranslator, lambda m: UtteranceStream(SpeechTranslator(m))):
        with pytest.raises(DataError, match=r"lm\.arpa: the language model cannot be read"):
            open_it(tuned)
    FileTranslator(tuned, TranslateConfig(decoder="greedy"))
    write_wav(tmp_path / "a.wav", np.zeros(16000, np.float32))
    command = ["translate", str(tmp_path / "a.wav"), "--model", str(tuned.path)]
    assert main(command) == 2 and "lm.arpa" in capsys.readouterr().err
    assert main([*command, "--decoder", "greedy"]) == 0
    with pytest.raises(ConfigError, match="`decoder` must be one of"):
        TranslateConfig(decoder="best")  # type: ignore[arg-type]


def test_damaged_and_missing_files_are_named(tuned: SpeechModel, speech: np.ndarray) -> None:
    assert tuned.path is not None
    folder = tuned.path / "translator"
    other = UnitSymbols(3)
    names = [[other.symbols[1], other.symbols[2]]]
    estimate_ngram(names, 2, words=other.symbols[1:]).write_arpa(folder / "lm.arpa")
    with pytest.raises(ModelError, match=r"lm\.arpa: .*the language model lacks \['u3'\]"):
        SpeechTranslator(tuned).translate([speech])
    (folder / "lm.arpa").unlink()
    with pytest.raises(DataError, match=r"lm\.arpa: the language model cannot be read"):
        SpeechTranslator(tuned).translate([speech])
    for content, reason in (
        ("{", "cannot be read"),
        ('{"format_version": 2}', "format version 2 is not 1"),
        ('{"format_version": 1, "tokens": {}}', "settings cannot be used"),
        ('{"format_version": 1, "tokens": {"is_used": true, "beam": {"a": 1}}}', "`a`"),
    ):
        (folder / "decoder.json").write_text(content, encoding="utf-8")
        with pytest.raises(ModelError, match=rf"decoder\.json.*{reason}"):
            SpeechTranslator(tuned)
    with pytest.raises(ConfigError, match="`decoder` must be one of"):
        SpeechTranslator(tuned, decoder="best")  # type: ignore[arg-type]
