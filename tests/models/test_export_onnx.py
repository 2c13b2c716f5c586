"""What onnxruntime makes of a model that was written for it is what the model itself says."""

from __future__ import annotations

import json

import pytest
import torch

from speechjepa.errors import DataError, ModelError
from speechjepa.models import export_onnx
from speechjepa.models.bundle import Bundle, load_bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.models.export_onnx import write_onnx
from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from speechjepa.text.vocabulary import Vocabulary
from tests.models.test_published import published, stored

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnx", reason="needs the extra onnx")

NATIVE = {
    "25 frames a second": {"frame_rate": 25},
    "streaming": {
        "normalization": "global",
        "chunk_frames": 8,
        "left_chunks": 2,
        "causal_convolution": True,
    },
    "prior": {"frame_rate": 25, "normalization_prior_seconds": 1.0},
    "pitch": {"frame_rate": 25, "pitch": True},
}
PUBLISHED = ("wav2vec2-base", "wavlm-large", "data2vec")


def native(**changes):
    torch.manual_seed(0)
    encoder = SpeechEncoder(
        SpeechEncoderConfig(width=32, num_layers=2, num_heads=2, ffn_width=48, **changes)
    )
    if encoder.feature_encoder.log_mel.prior is not None:
        encoder.feature_encoder.log_mel.prior.colour.normal_()
    vocabulary = Vocabulary.build(["abcdef g"])
    ctc = CtcModel(encoder, len(vocabulary), upsample=2)
    for parameter in ctc.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    ctc.head.weight.data.normal_()
    return Bundle(encoder=encoder.eval(), ctc=ctc.eval(), vocabulary=vocabulary, languages=("xx",))


def session_of(folder):
    return onnxruntime.InferenceSession(folder / "model.onnx")


def run(session, waveform, lengths):
    found, frames = session.run(None, {"waveform": waveform.numpy(), "lengths": lengths.numpy()})
    return torch.from_numpy(found), torch.from_numpy(frames)


def batches():
    """Batches of one and of several, padded and not, down to less than a frame and nothing."""
    generator = torch.Generator().manual_seed(1)
    for lengths in ([16000, 9000, 300], [5123], [70000, 69999], [8000, 8000], [100], [0, 0]):
        waveform = torch.randn(len(lengths), max(lengths), generator=generator) * 0.1
        yield waveform, torch.tensor(lengths)


def assert_same_logits(ctc, session, tolerance):
    for waveform, lengths in batches():
        with torch.no_grad():
            ours, frames = ctc(waveform, lengths)
        found, found_frames = run(session, waveform, lengths)
        assert found_frames.tolist() == frames.tolist()
        assert found.shape[:2] == (len(lengths), int(frames.max()))
        for row, count in enumerate(frames.tolist()):
            torch.testing.assert_close(
                found[row, :count], ours[row, :count], atol=tolerance, rtol=0
            )


@pytest.mark.parametrize("kind", NATIVE)
def test_a_native_model_has_the_same_logits(kind, tmp_path):
    bundle = native(**NATIVE[kind])
    report = write_onnx(bundle, tmp_path / "onnx")
    assert report.difference < 1e-3 and report.same_frames == 1.0
    session = session_of(tmp_path / "onnx")
    assert_same_logits(bundle.ctc, session, 1e-3)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["speechjepa"])
    assert facts["vocabulary"] == bundle.vocabulary.to_list()
    assert facts["frame_seconds"] == bundle.encoder.hop / 16000 / 2
    assert facts["languages"] == ["xx"] and facts["precision"] == "float32"


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_model_has_the_same_logits(kind, tmp_path):
    bundle = load_bundle(stored(published(kind), tmp_path / "m"))
    write_onnx(bundle, tmp_path / "onnx")
    assert_same_logits(bundle.ctc, session_of(tmp_path / "onnx"), 1e-3)


def test_an_encoder_alone_gives_its_features(tmp_path):
    bundle = native()
    bundle.ctc = bundle.vocabulary = None
    write_onnx(bundle, tmp_path / "onnx")
    session = session_of(tmp_path / "onnx")
    assert [output.name for output in session.get_outputs()] == ["features", "output_lengths"]
    waveform, lengths = torch.randn(2, 9000) * 0.1, torch.tensor([9000, 5000])
    with torch.no_grad():
        ours = bundle.encoder(waveform, lengths).features
    torch.testing.assert_close(run(session, waveform, lengths)[0], ours, atol=1e-3, rtol=0)


def test_int8_is_smaller_and_says_nearly_the_same(tmp_path):
    bundle = native(frame_rate=25)
    write_onnx(bundle, tmp_path / "float")
    report = write_onnx(bundle, tmp_path / "int8", int8=True)
    assert 0 < report.difference < 0.1 * logit_spread(bundle)
    assert report.same_frames > 0.95
    import onnx

    names = {
        kind: {node.op_type for node in onnx.load(tmp_path / kind / "model.onnx").graph.node}
        for kind in ("float", "int8")
    }
    assert "MatMulInteger" in names["int8"] and "MatMulInteger" not in names["float"]


def logit_spread(bundle):
    waveform, lengths = export_onnx._test_signal(None)
    with torch.no_grad():
        return float(bundle.ctc(waveform, lengths)[0].std()) * 10


def test_a_model_above_the_limit_of_protobuf_has_its_weights_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "MAX_PROTOBUF", 10_000)
    bundle = native()
    write_onnx(bundle, tmp_path / "onnx")
    assert {p.name for p in (tmp_path / "onnx").iterdir()} == {"model.onnx", "model.onnx.weights"}
    assert_same_logits(bundle.ctc, session_of(tmp_path / "onnx"), 1e-3)


def test_a_model_that_computes_something_else_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "TOLERANCE", 0.0)
    with pytest.raises(ModelError, match="onnxruntime's output differs by"):
        write_onnx(native(), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(DataError, match="holds something already"):
        write_onnx(native(), tmp_path)


def test_writing_leaves_the_model_as_it_was(tmp_path):
    bundle = load_bundle(stored(published("wav2vec2-base"), tmp_path / "m"))
    before = {name: tensor.clone() for name, tensor in bundle.ctc.state_dict().items()}
    write_onnx(bundle, tmp_path / "onnx")
    after = bundle.ctc.state_dict()
    assert list(after) == list(before) and not bundle.ctc.training
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
