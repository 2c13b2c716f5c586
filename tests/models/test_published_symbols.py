"""What published models are said to write: their symbols, and those that are refused."""

from __future__ import annotations

import json

import pytest
import torch

from speechjepa.errors import ModelError
from speechjepa.models.bundle import load_bundle
from tests.models.test_published import KINDS, LETTERS, published, stored


def test_what_transformers_saves_by_itself_is_read(tmp_path):
    # The processor in one file, since version 5; <s> and </s> among the added tokens.
    import transformers

    letters = {s: i for i, s in enumerate(["a", "b", "|", "[UNK]", "[PAD]"])}
    (tmp_path / "vocab.json").write_text(json.dumps(letters))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(
        str(tmp_path / "vocab.json"), unk_token="[UNK]", pad_token="[PAD]"
    )
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    processor = transformers.Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer)
    assert len(tokenizer) == 7
    model = published(next(iter(KINDS)), vocab_size=len(tokenizer), pad_token_id=4)
    processor.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / "preprocessor_config.json").exists()
    bundle = load_bundle(tmp_path / "model")
    assert bundle.encoder.config.normalize_waveform is False
    waveform = 0.02 * torch.randn(1, 16000)
    with torch.no_grad():
        theirs = model(waveform).logits
        ours, _ = bundle.ctc(waveform, torch.tensor([16000]))
    order = [4, *(n for n in range(7) if n != 4)]
    assert torch.allclose(theirs[..., order], ours, atol=1e-5)


def test_a_model_that_writes_phones_of_several_letters_is_refused(tmp_path):
    model = published(next(iter(KINDS)), vocab_size=len(LETTERS) + 2)
    folder = stored(model, tmp_path, [*LETTERS, "t\u0283", "a\u026a"])
    with pytest.raises(ModelError, match=r"'t\u0283', 'a\u026a' are symbols of several characters"):
        load_bundle(folder)


def test_added_tokens_without_rows_in_the_head_and_accented_letters_are_no_obstacle(tmp_path):
    model = published(next(iter(KINDS)), vocab_size=len(LETTERS) + 1)
    folder = stored(model, tmp_path, [*LETTERS, "\u025b\u0303"])
    (folder / "added_tokens.json").write_text(json.dumps({"[X]": len(LETTERS) + 1}))
    assert "\u025b\u0303" in load_bundle(folder).vocabulary.symbols
