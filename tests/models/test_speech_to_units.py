"""Translation models: shapes, padding, chunks, and what is found by search."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from speechjepa.errors import ConfigError, ModelError
from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from speechjepa.models.speech_to_units import (
    END,
    CtcTranslator,
    TranslatorConfig,
    UnitDecoder,
    collapse,
)
from speechjepa.models.translator_files import TranslatorFiles, load_translator, save_translator
from speechjepa.models.unit_search import beam_tokens, greedy_tokens
from speechjepa.nn.transformer import Chunks
from speechjepa.text.vocabulary import Vocabulary

SMALL = TranslatorConfig(num_layers=2, head_channels=16, ffn_factor=2, kernel_size=5)


def translator(**changes: int) -> CtcTranslator:
    torch.manual_seed(0)
    config = TranslatorConfig(**{**vars(SMALL), **changes})
    return CtcTranslator(32, 7, config).eval()


def decoder(num_tokens: int = 4) -> UnitDecoder:
    torch.manual_seed(0)
    config = TranslatorConfig(**{**vars(SMALL), "head": "autoregressive"})
    found = UnitDecoder(32, num_tokens, config).eval()
    torch.nn.init.normal_(found.head.weight, std=1.0)  # so that the best is clearly the best
    return found


def test_there_are_more_places_for_units_than_frames() -> None:
    found = translator(upsample=3)(torch.randn(2, 10, 32), torch.tensor([10, 6]))
    assert found.logits.shape == (2, 30, 7)
    assert found.lengths.tolist() == [30, 18]
    assert found.source_logits is None and found.text_logits is None


def test_auxiliary_heads_write_where_they_are_asked_for() -> None:
    model = translator(source_symbols=5, text_symbols=9)
    found = model(torch.randn(1, 4, 32), torch.tensor([4]))
    assert found.source_logits is not None and found.source_logits.shape == (1, 8, 5)
    assert found.text_logits is not None and found.text_logits.shape == (1, 8, 9)


def test_padding_changes_nothing() -> None:
    model, x = translator(), torch.randn(1, 6, 32)
    alone = model(x, torch.tensor([6])).logits
    padded = torch.cat([x, torch.full((1, 5, 32), 9.0)], dim=1)
    beside = model(torch.cat([padded, torch.randn(1, 11, 32)]), torch.tensor([6, 11])).logits
    assert torch.allclose(alone[0], beside[0, :12], atol=1e-5)


def test_chunks_hear_nothing_of_what_comes_later() -> None:
    model, x = translator(), torch.randn(1, 12, 32)
    lengths = torch.tensor([12])
    before = model(x, lengths, Chunks(4, None)).logits
    x[:, 8:] = 5.0
    after = model(x, lengths, Chunks(4, None)).logits
    assert torch.allclose(before[:, :16], after[:, :16], atol=1e-5)
    assert not torch.allclose(before[:, 16:], after[:, 16:], atol=1e-2)


def test_a_path_is_collapsed() -> None:
    assert collapse([0, 3, 3, 0, 3, 1, 1, 0]) == [3, 3, 1]


def test_a_decoder_with_caches_writes_what_it_writes_without() -> None:
    model = decoder()
    memory = model.remember(torch.randn(1, 5, 32), torch.tensor([5]))
    tokens = torch.tensor([[END, 1, 2, 3]])
    whole, _ = model(tokens, memory)
    caches = None
    for place in range(4):
        step, caches = model(tokens[:, place : place + 1], memory, caches)
        assert torch.allclose(step[:, 0], whole[:, place], atol=1e-5)


def test_a_decoder_hears_no_padding() -> None:
    model, x = decoder(), torch.randn(1, 5, 32)
    tokens = torch.tensor([[END, 1]])
    alone, _ = model(tokens, model.remember(x, torch.tensor([5])))
    padded = torch.cat([x, torch.full((1, 3, 32), 7.0)], dim=1)
    beside, _ = model(tokens, model.remember(padded, torch.tensor([5])))
    assert torch.allclose(alone, beside, atol=1e-5)


def test_a_wide_beam_finds_the_best_of_all_sequences() -> None:
    model = decoder()
    memory = model.remember(torch.randn(1, 5, 32), torch.tensor([5]))
    scores = {}
    for size in range(4):
        for tokens in product((1, 2, 3), repeat=size):
            given = torch.tensor([[END, *tokens]])
            steps = model(given, memory)[0][0].log_softmax(dim=-1)
            wanted = (*tokens, END)
            total = sum(float(steps[i, token].detach()) for i, token in enumerate(wanted))
            scores[tokens] = total / len(wanted)
    best = beam_tokens(model, memory, most=4, beam=60)[0]
    assert best.tokens == max(scores, key=lambda tokens: scores[tokens])
    assert best.score == pytest.approx(max(scores.values()), abs=1e-4)


def test_a_beam_of_one_is_greedy_and_batches_do_not_matter() -> None:
    model = decoder(6)
    x = torch.randn(3, 5, 32)
    together = greedy_tokens(model, model.remember(x, torch.tensor([5, 5, 5])), most=6)
    for row in range(3):
        memory = model.remember(x[row : row + 1], torch.tensor([5]))
        assert greedy_tokens(model, memory, most=6) == [together[row]]
        assert list(beam_tokens(model, memory, most=6, beam=1)[0].tokens) == together[row]


def test_a_translator_comes_back_from_disk_and_damage_is_named(tmp_path) -> None:
    encoder = SpeechEncoder(SpeechEncoderConfig(width=32, num_layers=1, num_heads=2, ffn_width=32))
    model = translator(text_symbols=3)
    files = TranslatorFiles(
        kind="units",
        num_tokens=7,
        config=model.config,
        text_vocabulary=Vocabulary(["<blank>", "|", "a"]),
        language="en",
    )
    folder = save_translator(model, files, tmp_path)
    again, said = load_translator(tmp_path, encoder)
    assert said == files
    x, lengths = torch.randn(1, 4, 32), torch.tensor([4])
    assert torch.equal(again(x, lengths).logits, model(x, lengths).logits)
    with pytest.raises(ModelError, match="holds no translator"):
        load_translator(tmp_path / "elsewhere", encoder)
    text = (folder / "config.json").read_text(encoding="utf-8")
    for old, new, reason in (
        ('"format_version": 1', '"format_version": 9', "must be 1, but is 9"),
        ('"num_layers"', '"num_layer"', "num_layer"),
        ('"num_tokens": 7', '"num_tokens": 8', "cannot be read"),
    ):
        (folder / "config.json").write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(ModelError, match=reason):
            load_translator(tmp_path, encoder)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="`kernel_size` must be odd"):
        TranslatorConfig(kernel_size=4)
    with pytest.raises(ConfigError, match="must divide the encoder's width 30"):
        CtcTranslator(30, 4, TranslatorConfig(head_channels=7))
