"""A bundle gives back exactly what was saved, and says which file is wrong when it cannot."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

from speechjepa.errors import ModelError
from speechjepa.models.bundle import (
    Bundle,
    build_encoder,
    load_bundle,
    load_init,
    num_parameters,
    save_bundle,
    update_bundle,
)
from speechjepa.models.ctc import CtcModel
from speechjepa.models.pretraining import PredictorConfig, build_predictor
from speechjepa.models.speech_encoder import SpeechEncoderConfig
from speechjepa.models.wav2vec2 import Wav2Vec2Config
from speechjepa.text.normalize import TextConfig
from speechjepa.text.vocabulary import Vocabulary

NATIVE = SpeechEncoderConfig(
    width=16, num_layers=2, num_heads=2, ffn_width=24, kernel_size=5, frame_rate=25
)
WAVEFORM = Wav2Vec2Config(
    conv_widths=(8,) * 7,
    width=16,
    num_layers=2,
    num_heads=2,
    ffn_width=24,
    position_kernel=8,
    position_groups=2,
)
CONFIGS = pytest.mark.parametrize("config", [NATIVE, WAVEFORM], ids=["native", "wav2vec2"])


def fine_tuned(config=NATIVE) -> Bundle:
    torch.manual_seed(0)
    encoder = build_encoder(config)
    vocabulary = Vocabulary.build(["abc ǀ ŋ"])
    return Bundle(
        encoder=encoder,
        ctc=CtcModel(encoder, len(vocabulary), upsample=2),
        vocabulary=vocabulary,
        text=TextConfig(lowercase=False, replacements={"ŋ": "ng"}),
        languages=("mdw", "no"),
        training={"finetune": {"label_minutes": 10.5}},
        results={"cer": 0.25},
        licence="CC-BY-4.0",
    )


def change(folder, **entries):
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    for key, value in entries.items():
        config[key] = value
    path.write_text(json.dumps(config), encoding="utf-8")


@CONFIGS
def test_what_is_loaded_is_exactly_what_was_saved(tmp_path, config):
    saved = fine_tuned(config)
    loaded = load_bundle(save_bundle(saved, tmp_path / "deep" / "bundle"))
    assert loaded.encoder.config == saved.encoder.config
    for name, tensor in saved.ctc.state_dict().items():
        assert torch.equal(loaded.ctc.state_dict()[name], tensor), name
    assert loaded.vocabulary.symbols == saved.vocabulary.symbols
    assert loaded.text == saved.text
    assert loaded.languages == saved.languages
    assert loaded.training == saved.training
    assert loaded.results == saved.results
    assert loaded.licence == saved.licence
    assert loaded.ctc.upsample == 2
    waveform, lengths = torch.randn(2, 4000), torch.tensor([4000, 3000])
    saved.ctc.eval()
    with torch.no_grad():
        assert torch.equal(loaded.ctc(waveform, lengths)[0], saved.ctc(waveform, lengths)[0])


@CONFIGS
def test_a_pretrained_encoder_travels_without_a_head(tmp_path, config):
    encoder = build_encoder(config)
    loaded = load_bundle(save_bundle(Bundle(encoder=encoder), tmp_path / "b"))
    assert loaded.ctc is None and loaded.vocabulary is None
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.encoder.state_dict()[name], tensor), name


def test_training_can_start_from_a_fine_tuned_model(tmp_path):
    saved = fine_tuned()
    encoder = load_init(save_bundle(saved, tmp_path / "b"))
    assert torch.equal(encoder.norm.weight, saved.encoder.norm.weight)
    assert num_parameters(encoder) == num_parameters(saved.encoder)


def test_a_loaded_model_is_in_evaluation_mode(tmp_path):
    loaded = load_bundle(save_bundle(fine_tuned(WAVEFORM), tmp_path / "b"))
    assert not any(module.training for module in loaded.ctc.modules())


def test_saving_again_replaces_the_model_and_leaves_its_neighbours(tmp_path):
    folder = save_bundle(fine_tuned(), tmp_path / "b")
    (folder / "lm.arpa").write_text("the language model")
    other = fine_tuned()
    other.ctc.head.bias.data.fill_(3.0)
    save_bundle(other, folder)
    assert (load_bundle(folder).ctc.head.bias == 3.0).all()
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "lm.arpa",
        "model.safetensors",
    ]


def test_update_changes_the_named_entries_alone(tmp_path):
    folder = save_bundle(fine_tuned(), tmp_path / "b")
    (folder / "decoder.json").write_text("{}")
    weights = (folder / "model.safetensors").read_bytes()
    update_bundle(folder, results={"wer": 0.5}, licence="CC0-1.0")
    loaded = load_bundle(folder)
    assert loaded.results == {"wer": 0.5}
    assert loaded.licence == "CC0-1.0"
    assert loaded.training == {"finetune": {"label_minutes": 10.5}}
    assert (folder / "model.safetensors").read_bytes() == weights
    assert (folder / "decoder.json").exists()


def test_a_predictor_travels_with_the_encoder_and_may_be_absent(tmp_path):
    torch.manual_seed(1)
    encoder = build_encoder(NATIVE)
    sizes = PredictorConfig(
        output_width=16,
        predictor_width=8,
        predictor_layers=2,
        projection_width=None,
        average_top_k_layers=2,
        mask_length_seconds=0.2,
    )
    saved = Bundle(
        encoder=encoder, predictor=build_predictor(encoder, sizes), predictor_config=sizes
    )
    folder = save_bundle(saved, tmp_path / "b")
    loaded = load_bundle(folder)
    assert loaded.predictor_config == sizes
    assert loaded.predictor.encoder is loaded.encoder
    for name, tensor in saved.predictor.state_dict().items():
        assert torch.equal(loaded.predictor.state_dict()[name], tensor), name
    older = save_bundle(Bundle(encoder=encoder), tmp_path / "older")
    config = json.loads((older / "config.json").read_text("utf-8"))
    del config["predictor"]
    (older / "config.json").write_text(json.dumps(config), "utf-8")
    assert load_bundle(older).predictor is None


def test_what_is_not_a_bundle_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere: there is no such folder"):
        load_bundle(tmp_path / "nowhere")
    (tmp_path / "model.onnx").write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"model\.onnx: this is a file; a model is a folder"):
        load_bundle(tmp_path / "model.onnx")
    (tmp_path / "model.pt").write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"model\.pt: is damaged"):
        load_bundle(tmp_path / "model.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty: not a model: it holds no config\.json"):
        load_bundle(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").mkdir()
    with pytest.raises(ModelError, match=r"config\.json: cannot be read"):
        load_bundle(tmp_path / "empty")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"[1]", b"null", b'"text"']
)
def test_a_damaged_config_is_named(tmp_path, content):
    folder = save_bundle(fine_tuned(), tmp_path / "b")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json: "):
        load_bundle(folder)


def test_the_model_of_another_package_is_refused(tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "config.json").write_text('{"encoder": "of another kind"}')
    with pytest.raises(ModelError, match=r"config\.json: `format_version` must be 1, but is None"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"encoder": {"type": "native", "widht": 3}}, "unknown key `widht`; did you mean `width`"),
        ({"encoder": {"type": "native", "width": "wide"}}, "`width` must be an integer"),
        ({"encoder": {"type": "native", "width": 17}}, "`width` must be divisible"),
        ({"encoder": {"type": "native", "width": -6}}, "`width` must be at least 1"),
        ({"encoder": {"type": "cpc"}}, "must be native or wav2vec2, but is 'cpc'"),
        ({"encoder": 5}, "not iterable"),
        ({"encoder": None}, "not iterable"),
        ({"vocabulary": ["a", "b"]}, "vocabulary must start with '<blank>'"),
        ({"vocabulary": 7}, "int"),
        ({"vocabulary": None}, "there is a head but no vocabulary"),
        ({"text": {"lowercase": "perhaps"}}, "`lowercase` must be true or false"),
        ({"languages": 3}, "`languages` must be"),
        ({"languages": "es"}, "`languages` must be"),
        ({"languages": [1]}, "`languages"),
        ({"training": 3}, "`training` must be"),
        ({"training": {"pretrain": 3}}, "`training"),
        ({"head": {}}, "`type` is missing"),
        ({"head": "ctc"}, "must be a section of keys, but is 'ctc'"),
        ({"head": {"type": "transducer", "upsample": 2}}, "`type` must be"),
    ],
)
def test_an_entry_that_does_not_fit_is_named(tmp_path, entries, message):
    folder = save_bundle(fine_tuned(), tmp_path / "b")
    change(folder, **entries)
    with pytest.raises(ModelError, match=message) as caught:
        load_bundle(folder)
    assert str(folder / "config.json") in str(caught.value)


@pytest.mark.parametrize("key", ["encoder", "head", "text", "languages", "training", "licence"])
def test_a_missing_entry_is_named(tmp_path, key):
    folder = save_bundle(fine_tuned(), tmp_path / "b")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    del config[key]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=rf"config\.json: `{key}` is missing"):
        load_bundle(folder)


def test_missing_damaged_and_unfitting_weights_are_named(tmp_path):
    folder = save_bundle(fine_tuned(), tmp_path / "b")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors: the weights cannot be read"):
        load_bundle(folder)
    weights.write_bytes(b"")
    with pytest.raises(ModelError, match=r"model\.safetensors: the weights cannot be read"):
        load_bundle(folder)
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors: the weights are missing"):
        load_bundle(folder)
    weights.write_bytes(whole)
    change(folder, vocabulary=["<blank>", "|", "a"])
    with pytest.raises(ModelError, match=r"model\.safetensors: the weights do not fit config"):
        load_bundle(folder)


class _Alarm:
    def __reduce__(self):
        return (exec, ("raise SystemExit('pickle was executed')",))


@pytest.mark.parametrize("maker", ["pickle", "torch"])
def test_pickles_are_never_executed(tmp_path, maker):
    folder = save_bundle(fine_tuned(), tmp_path / "b")
    for name in ("model.safetensors", "pytorch_model.bin", "model.pt"):
        if maker == "torch":
            torch.save(_Alarm(), folder / name)
        else:
            (folder / name).write_bytes(pickle.dumps(_Alarm()))
    with pytest.raises(ModelError, match=r"model\.safetensors: the weights cannot be read"):
        load_bundle(folder)


def test_starting_from_a_broken_bundle_says_so(tmp_path):
    with pytest.raises(ModelError, match="cannot start from .*nowhere"):
        load_init(tmp_path / "nowhere")
