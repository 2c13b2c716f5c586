"""A head starts from what another head knows of the same symbols."""

from __future__ import annotations

import torch

from speechjepa.models.bundle import Bundle, build_encoder
from speechjepa.models.ctc import CtcModel
from speechjepa.models.speech_encoder import SpeechEncoderConfig
from speechjepa.text.vocabulary import Vocabulary
from speechjepa.training.inherit import has_same_head, inherit_head

SIZES = SpeechEncoderConfig(
    width=16, num_layers=2, num_heads=2, ffn_width=24, kernel_size=5, frame_rate=25
)


def model(vocabulary, upsample=2):
    network = CtcModel(build_encoder(SIZES), len(vocabulary), upsample)
    torch.nn.init.normal_(network.head.weight)
    torch.nn.init.normal_(network.head.bias)
    return network


def test_shared_symbols_keep_their_logits_and_marked_letters_start_as_plain_ones():
    torch.manual_seed(0)
    phones, letters = Vocabulary.build(["aeŋt"]), Vocabulary.build(["aáŋ qz"])
    old, new = model(phones), model(letters)
    source = Bundle(encoder=old.encoder, ctc=old, vocabulary=phones)
    assert inherit_head(new, letters, source) == ["<blank>", "a", "á", "ŋ"]
    features = torch.randn(1, 3, 16)
    before, after = old.head_logits(features), new.head_logits(features)
    for symbol, same in (("<blank>", "<blank>"), ("a", "a"), ("á", "a"), ("ŋ", "ŋ")):
        theirs = before[..., phones.symbols.index(same)]
        assert torch.allclose(after[..., letters.symbols.index(symbol)], theirs, atol=1e-5)
    for symbol in ("|", "q", "z"):
        mean = before[..., 1:].mean(dim=-1)
        assert torch.allclose(after[..., letters.symbols.index(symbol)], mean, atol=1e-5)


def test_nothing_happens_where_nothing_is_shared():
    torch.manual_seed(0)
    letters, others = Vocabulary.build(["ab"]), Vocabulary.build(["xy"])
    for source in (
        Bundle(encoder=build_encoder(SIZES)),
        Bundle(encoder=(o := model(others)).encoder, ctc=o, vocabulary=others),
        Bundle(encoder=(o := model(letters, 1)).encoder, ctc=o, vocabulary=letters),
    ):
        new = model(letters)
        weights = new.head.weight.clone()
        assert inherit_head(new, letters, source) == []
        assert torch.equal(new.head.weight, weights)


def test_another_round_of_the_same_symbols_goes_on_with_the_whole_head():
    torch.manual_seed(0)
    letters = Vocabulary.build(["ab a"])
    old, new = model(letters), model(letters)
    source = Bundle(encoder=old.encoder, ctc=old, vocabulary=letters)
    assert has_same_head(letters, 2, source)
    assert not has_same_head(letters, 1, source)  # a head of another shape has to learn anew
    assert not has_same_head(Vocabulary.build(["abc"]), 2, source)
    assert not has_same_head(letters, 2, Bundle(encoder=old.encoder))
    assert inherit_head(new, letters, source) == ["<blank>", "|", "a", "b"]
    assert torch.equal(new.head.weight, old.head.weight)
    assert torch.equal(new.head.bias, old.head.bias)
