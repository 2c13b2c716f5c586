"""Files of fairseq give the layers and logits that its models have; what is damaged is refused."""

from __future__ import annotations

import argparse
import pickle
import re
import sys
import types
import typing
import zipfile
from collections import defaultdict

import pytest
import torch

from speechjepa.errors import ModelError
from speechjepa.models.bundle import load_bundle, save_bundle
from speechjepa.models.checkpoint_files import StandIn, read_checkpoint
from speechjepa.models.fairseq_settings import convolution_layers, read_symbols
from speechjepa.models.published_files import read_checkpoint_file
from speechjepa.models.published_write import write_published
from speechjepa.nn.waveform_encoder import normalize_waveform
from tests.models.test_published import published
from tests.models.test_published_torchaudio import torchaudio_model
from tests.models.test_wav2vec2 import audio, run_published

TO_FAIRSEQ = (
    (r"(wav2vec2|hubert|wavlm)\.", ""),
    (r"(feature_extractor\.conv_layers\.\d+)\.conv\.", r"\1.0."),
    (r"feature_projection\.layer_norm\.", "layer_norm."),
    (r"feature_projection\.projection\.", "post_extract_proj."),
    (r"masked_spec_embed$", "mask_emb"),
    (r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0", "POS.weight_g"),
    (r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1", "POS.weight_v"),
    (r"encoder\.pos_conv_embed\.conv\.", "POS."),
    (r"POS\.", "encoder.pos_conv.0."),
    (r"(encoder\.layers\.\d+)\.attention\.gru_rel_pos_linear", r"\1.self_attn.grep_linear"),
    (r"(encoder\.layers\.\d+)\.attention\.gru_rel_pos_const", r"\1.self_attn.grep_a"),
    (
        r"(encoder\.layers\.\d+)\.attention\.rel_attn_embed",
        r"\1.self_attn.relative_attention_bias",
    ),
    (r"(encoder\.layers\.\d+)\.attention\.", r"\1.self_attn."),
    (r"(encoder\.layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.feed_forward\.intermediate_dense\.", r"\1.fc1."),
    (r"(encoder\.layers\.\d+)\.feed_forward\.output_dense\.", r"\1.fc2."),
)
"""The mapping that `transformers` documents for its conversion, backwards."""
CONVOLUTIONS = "[(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16,2,2)] + [(16,2,2)]"


def fairseq_state(model):
    """The weights of a model of `transformers`, as fairseq names them."""
    layer_norms = model.config.feat_extract_norm == "layer"
    state = {}
    for name, tensor in model.state_dict().items():
        for pattern, replacement in TO_FAIRSEQ:
            name = re.sub("^" + pattern, replacement, name)
        norm = re.match(r"(feature_extractor\.conv_layers\.\d+)\.layer_norm\.(.*)", name)
        if norm:
            name = f"{norm[1]}.2.1.{norm[2]}" if layer_norms else f"{norm[1]}.2.{norm[2]}"
        if name.startswith("lm_head."):
            name = name.replace("lm_head", "w2v_encoder.proj")
        elif hasattr(model, "lm_head"):
            name = "w2v_encoder.w2v_model." + name
        state[name] = tensor
    return state


def settings_of(model, **changes):
    return {
        "encoder_attention_heads": model.config.num_attention_heads,
        "conv_feature_layers": CONVOLUTIONS,
        "layer_norm_first": model.config.do_stable_layer_norm,
        "dropout": 0.15,
        **changes,
    }


def write_dictionary(folder):
    lines = ["| 94802", "E 51860", "T 38431", "A 33152"]
    (folder / "dict.ltr.txt").write_text("\n".join(lines) + "\n")


def assert_same(bundle, model, *, normalized):
    waveform, lengths = audio(8000, 8000)
    values = normalize_waveform(waveform, lengths) if normalized else waveform
    expected = run_published(model.base_model, values)
    with torch.no_grad():
        output = bundle.encoder(waveform, lengths, return_layers=True)
        for ours, theirs in zip([*output.layers, output.features], expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
        if bundle.ctc is not None:
            logits, theirs = bundle.ctc(waveform, lengths)[0], model(values).logits
            torch.testing.assert_close(logits, theirs, atol=1e-4, rtol=0)
            assert logits.std() > 0.05


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", ["wav2vec2-base", "wav2vec2-large", "hubert-large", "wavlm-large"])
def test_a_pretrained_model_of_fairseq_has_its_layers(kind, normalize, tmp_path):
    model = published(kind, "Model")
    settings = settings_of(model)
    if kind.startswith("wavlm"):  # which has its settings in cfg itself
        cfg = {**settings, "normalize": normalize, "max_distance": 12}
    else:
        cfg = {"model": {"_name": "wav2vec2", **settings}, "task": {"normalize": normalize}}
    state = {**fairseq_state(model), "quantizer.vars": torch.ones(1, 4, 3)}
    torch.save({"args": None, "cfg": cfg, "model": state}, tmp_path / "a.pt")
    bundle = load_bundle(tmp_path / "a.pt")
    assert_same(bundle, model, normalized=normalize)
    assert bundle.encoder.config.dropout == 0.15
    assert bundle.encoder.config.normalize_waveform == normalize


@pytest.mark.parametrize("kind", ["wav2vec2-base", "wav2vec2-large"])
def test_a_ctc_model_of_fairseq_has_its_logits_and_symbols(kind, tmp_path):
    model = published(kind)
    pretrained = {"model": {"_name": "wav2vec2", **settings_of(model)}, "task": {}}
    cfg = {
        "model": {"_name": "wav2vec_ctc", "dropout": 0.0, "w2v_args": pretrained},
        "task": {"_name": "audio_finetuning", "normalize": True},
    }
    torch.save({"cfg": cfg, "model": fairseq_state(model)}, tmp_path / "a.pt")
    write_dictionary(tmp_path)
    bundle = load_bundle(tmp_path / "a.pt")
    assert_same(bundle, model, normalized=True)
    assert bundle.vocabulary.symbols == ("<blank>", "<s>", "</s>", "<unk>", "|", "E", "T", "A")
    again = load_bundle(save_bundle(bundle, tmp_path / "ours"))
    assert_same(again, model, normalized=True)
    assert_same(load_bundle(write_published(bundle, tmp_path / "hf")), model, normalized=True)


class Dictionary:
    def __init__(self, symbols):
        self.symbols, self.count = symbols, [1] * len(symbols)


class DictConfig:
    """As omegaconf's pickles: what it holds is in nodes under `_content`."""

    def __init__(self, content):
        self._content = {
            key: DictConfig(v) if isinstance(v, dict) else AnyNode(v) for key, v in content.items()
        }
        self._parent = None


class AnyNode:
    def __init__(self, value):
        self._val = value
        types_of_settings = (str, int, typing.Any, typing.List[int])  # noqa: UP006
        self._metadata = {"types": types_of_settings, "cache": defaultdict(dict)}


@pytest.fixture
def foreign(monkeypatch):
    """Classes of the names that fairseq's checkpoints mention, only while a file is written."""
    names = {
        "fairseq.data.dictionary": (Dictionary,),
        "omegaconf.dictconfig": (DictConfig,),
        "omegaconf.nodes": (AnyNode,),
    }
    with monkeypatch.context() as patch:
        for module, classes in names.items():
            parts = module.split(".")
            for end in range(1, len(parts) + 1):
                patch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(parts[end - 1]))
            for kind in classes:
                patch.setattr(kind, "__module__", module)
                setattr(sys.modules[module], kind.__name__, kind)
        yield patch.undo
    assert "fairseq" not in sys.modules


@pytest.mark.parametrize("zipped", [True, False])
def test_settings_as_objects_are_read_without_their_classes(foreign, zipped, tmp_path):
    model = published("wav2vec2-large")
    namespace = argparse.Namespace(
        normalize=False, w2v_args=argparse.Namespace(**settings_of(model, normalize=False))
    )
    cfg = DictConfig({"model": {"w2v_args": settings_of(model, dropout=0.25)}})
    symbols = ["<s>", "<pad>", "</s>", "<unk>", "|", "E", "T", "A"]
    checkpoint = {
        "args": namespace,
        "cfg": cfg,
        "model": fairseq_state(model),
        "task_state": {"target_dictionary": Dictionary(symbols)},
    }
    path = tmp_path / "a.pt"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    foreign()
    assert isinstance(read_checkpoint(path)["args"], StandIn)
    bundle = read_checkpoint_file(path)
    assert_same(bundle, model, normalized=False)
    assert bundle.encoder.config.dropout == 0.25
    assert bundle.vocabulary.symbols[4:] == ("|", "E", "T", "A")


def test_what_runs_code_is_refused_and_nothing_runs(tmp_path):
    class Harm:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'harm')!r}, 'w')",))

    class Hidden:
        """Under a known name, with the file's own idea of how it is put together."""

        def __reduce__(self):
            return (argparse.Namespace, (), {"a": Harm()})

    state = fairseq_state(published("wav2vec2-base", "Model"))
    for extra in ({"args": Harm()}, {"args": Hidden()}, {"cfg": {"model": Harm()}}):
        torch.save({**extra, "model": state}, tmp_path / "a.pt")
        with pytest.raises(
            ModelError, match=r"it asks for __builtin__.exec. If you trust the file"
        ):
            load_bundle(tmp_path / "a.pt")
    with open(tmp_path / "b.pt", "wb") as file:
        pickle.dump({"args": Harm()}, file)
    with pytest.raises(ModelError, match="holds more than tensors"):
        load_bundle(tmp_path / "b.pt")
    assert not (tmp_path / "harm").exists()


def test_heads_come_from_the_width_of_a_published_model(tmp_path):
    model = torchaudio_model("base", width=768, heads=12, encoder_num_layers=1, aux_num_out=None)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    assert load_bundle(tmp_path / "a.pt").encoder.config.num_heads == 12
    torch.save(torchaudio_model("base").state_dict(), tmp_path / "b.pt")
    with pytest.raises(ModelError, match=r"no published model is 32 wide.*--heads N"):
        load_bundle(tmp_path / "b.pt")
    with pytest.raises(ModelError, match="`width` must be divisible by `num_heads`"):
        read_checkpoint_file(tmp_path / "b.pt", num_heads=5)


@pytest.mark.parametrize("content", [b".pop from an empty list", b"garbage", b""])
def test_a_damaged_file_is_called_damaged_and_what_to_do_is_said(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    told = r"a\.pt: is damaged, or holds more than tensors; copy or download it again"
    with pytest.raises(ModelError, match=told):
        load_bundle(tmp_path / "a.pt")


def test_what_is_damaged_or_lies_is_one_clear_error(tmp_path):
    model = published("wav2vec2-base")
    state = fairseq_state(model)
    cfg = {"model": settings_of(model)}
    path = tmp_path / "a.pt"

    def refused(match, content):
        torch.save(content, path)
        with pytest.raises(ModelError, match=match):
            load_bundle(path)

    def changed(**changes):
        return {"cfg": cfg, "model": {k: v for k, v in (state | changes).items() if v is not None}}

    inner = "w2v_encoder.w2v_model."
    projection = {inner + "post_extract_proj.weight": torch.ones(32, 17)}
    refused("no dict.ltr.txt beside it", changed())
    write_dictionary(tmp_path)
    assert load_bundle(path).ctc is not None
    refused(r"must be \(32, 16\) .* but is \(32, 17\)", changed(**projection))
    refused("lacks encoder.layers.1.final", changed(**{inner + L1_NORM: None}))
    refused("has encoder.layers.1.x", changed(**{inner + "encoder.layers.1.x": torch.ones(1)}))
    refused("not all in the file", changed(**{inner + "mask_emb": torch.ones(1).expand(32)}))
    refused("'mask_emb' is a int", {"model": {"mask_emb": 3}})
    refused(r"head must be \(8, 32\)", changed(**{"w2v_encoder.proj.weight": torch.ones(9, 32)}))
    refused("is not a wav2vec 2.0.*begins with decoder.x", {"decoder.x": torch.ones(1)})
    refused("begins with nothing", {})
    refused("holds a list", [1])
    refused("name the folder", {"feature_projection.layer_norm.weight": torch.ones(1)})
    for lie in ("__import__('os')", "[(16, 10, 5)] * 10**9", "[(16, 10)]", "(", "[" * 9999):
        what = {"model": settings_of(model, conv_feature_layers=lie)}
        refused("`conv_feature_layers` cannot be read", {"cfg": what, "model": state})
    refused("kernels.*neither", {**changed(), "cfg": {"model": settings_of(model) | TWO_LAYERS}})
    (tmp_path / "dict.ltr.txt").write_text("| 3\n| 4\n")
    refused(r"dict.ltr.txt:2: '\|' comes twice", changed())
    for content in (b"", b"PK\x03\x04 not a zip", b"\x80\x02not a pickle"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="is damaged"):
            load_bundle(path)


def test_an_archive_that_swells_is_refused_before_it_does(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 50_000_000)
        archive.writestr("a/version", b"3")
    assert path.stat().st_size < 100_000
    with pytest.raises(ModelError, match="would unpack to 50 MB"):
        load_bundle(path)


L1_NORM = "encoder.layers.1.final_layer_norm.weight"
TWO_LAYERS = {"conv_feature_layers": "[(16, 10, 5)] * 2"}


def test_the_layers_of_fairseq_are_read_as_python_would():
    text = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"
    assert convolution_layers(text) == eval(text)  # noqa: S307


def test_a_dictionary_of_fairseq_has_its_four_symbols_first(tmp_path):
    (tmp_path / "dict.ltr.txt").write_text("| 3\nx 2 #fairseq:overwrite\n")
    symbols = ["<pad>", "<s>", "</s>", "<unk>", "|", "x"]
    assert list(read_symbols(tmp_path / "dict.ltr.txt")) == symbols
    (tmp_path / "dict.ltr.txt").write_text("| 3\nx\n")
    with pytest.raises(ModelError, match="dict.ltr.txt:2: must be a symbol and its count"):
        read_symbols(tmp_path / "dict.ltr.txt")
