import pytest
import torch

from speechjepa.errors import ConfigError
from speechjepa.inference import compute
from speechjepa.inference.compute import prepare
from speechjepa.models.ctc import CtcModel
from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from speechjepa.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from speechjepa.models.wav2vec2_ragged import RaggedWav2Vec2, can_be_ragged

SMALL = {
    "conv_widths": (16,) * 7,
    "width": 32,
    "num_layers": 2,
    "num_heads": 2,
    "ffn_width": 64,
    "position_kernel": 16,
    "position_groups": 4,
}
VARIANTS = {
    "base": {},
    "large": {"conv_norm": "layer", "conv_bias": True, "pre_norm": True},
    "adapters": {"conv_norm": "layer", "pre_norm": True, "adapter_width": 8},
    "as it comes": {"normalize_waveform": False, "feature_norm": False},
}
LENGTHS = [16000, 401, 24321, 720]


def wav2vec2(**changes):
    torch.manual_seed(0)
    ctc = CtcModel(Wav2Vec2(Wav2Vec2Config(**{**SMALL, **changes})), 9, upsample=2).eval()
    for parameter in ctc.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return ctc


def native():
    torch.manual_seed(0)
    config = SpeechEncoderConfig(width=32, num_layers=2, num_heads=2, ffn_width=64)
    return CtcModel(SpeechEncoder(config), 9).eval()


def batch():
    torch.manual_seed(1)
    return 0.1 * torch.randn(len(LENGTHS), max(LENGTHS)), torch.tensor(LENGTHS)


@torch.no_grad()
def logits_of(forward, waveform, lengths):
    logits, counts = forward(waveform, lengths)
    return [row[:count] for row, count in zip(logits, counts.tolist(), strict=True)]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_ragged_network_is_the_same_function(name):
    ctc = wav2vec2(**VARIANTS[name])
    computation, forward = prepare(ctc, "float32")
    assert str(computation) == "computing in float32"
    found, expected = logits_of(forward, *batch()), logits_of(ctc, *batch())
    for row, one in zip(found, expected, strict=True):
        torch.testing.assert_close(row, one, atol=2e-4, rtol=1e-4)


def test_an_utterance_without_a_frame_has_no_logits():
    rows = RaggedWav2Vec2(wav2vec2(), "float32")([torch.zeros(100), torch.randn(800)])
    assert [tuple(row.shape) for row in rows] == [(0, 9), (4, 9)]


def test_pieces_of_a_long_utterance_are_the_whole(monkeypatch):
    ctc, waveform = wav2vec2(), torch.randn(40000)
    (expected,) = RaggedWav2Vec2(ctc, "float32")([waveform])
    monkeypatch.setattr("speechjepa.models.wav2vec2_ragged._PIECE_FRAMES", 7)
    (found,) = RaggedWav2Vec2(ctc, "float32")([waveform])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [wav2vec2, native])
@pytest.mark.parametrize(
    ("compute_type", "least", "most"), [("bfloat16", 1e-4, 0.05), ("int8", 1e-4, 0.05)]
)
def test_fewer_bits_change_logits_a_little(make, compute_type, least, most):
    ctc = make()
    _, forward = prepare(ctc, compute_type)
    scale = torch.cat(logits_of(ctc, *batch())).std()
    for row, one in zip(logits_of(forward, *batch()), logits_of(ctc, *batch()), strict=True):
        assert row.dtype == torch.float32
        if len(row):
            assert least < (row - one).abs().mean() / scale < most


def test_fewer_bits_leave_the_model_itself_alone():
    ctc = native()
    before = {name: value.clone() for name, value in ctc.state_dict().items()}
    prepare(ctc, "int8")
    assert type(ctc.encoder.blocks[0].ffn_in) is torch.nn.Linear
    assert all(torch.equal(value, before[name]) for name, value in ctc.state_dict().items())


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((1.0, 0.5, 0.4), "bfloat16"),
        ((1.0, 2.0, 0.9), "float32"),
        ((1.0, 2.0, 0.5), "int8"),
    ],
)
def test_auto_takes_the_fastest_and_int8_only_where_it_is_much_faster(
    monkeypatch, seconds, expected
):
    clock = [0.0]
    times = dict(zip(("float32", "bfloat16", "int8"), seconds, strict=True))

    def forward_of(ctc, compute_type):
        def forward(waveform, lengths):
            clock[0] += times[compute_type]
            return torch.zeros(1, 1, 9), lengths

        return forward

    monkeypatch.setattr(compute, "_chosen", {})
    monkeypatch.setattr(compute, "_LEAST_PARAMETERS", 0)
    monkeypatch.setattr(compute, "_forward", forward_of)
    monkeypatch.setattr(compute.time, "perf_counter", lambda: clock[0])
    computation, _ = prepare(native(), "auto")
    assert computation.compute_type == expected
    assert f"float32 {seconds[0]:.3f} s, bfloat16 {seconds[1]:.3f} s" in str(computation)
    spent = clock[0]
    prepare(native(), "auto")
    assert clock[0] == spent  # once per process


def test_a_small_model_is_not_tried():
    computation, _ = prepare(native(), "auto")
    assert (computation.compute_type, computation.seconds) == ("float32", {})


def test_other_networks_are_not_ragged():
    assert not can_be_ragged(native())
    assert not can_be_ragged(wav2vec2(bias_buckets=32))
    assert not can_be_ragged(wav2vec2(position_layers=2, position_kernel=5))


def test_int8_elsewhere_than_on_a_cpu_is_refused():
    with pytest.raises(ConfigError, match="on a CPU only, but the device is 'meta'"):
        prepare(native().to("meta"), "int8")


def test_a_format_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="`compute_type` must be one of .* but is 'fp32'"):
        prepare(native(), "fp32")
