"""Checkpoints of `transformers` give the same layers, logits and files as `transformers` itself."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file

from speechjepa.errors import DataError, ModelError
from speechjepa.models.bundle import load_bundle, load_init, save_bundle
from speechjepa.models.published import SIZES, read_published
from speechjepa.models.published_write import write_published
from speechjepa.nn.waveform_encoder import normalize_waveform
from speechjepa.text.normalize import normalize_text
from tests.models.test_wav2vec2 import audio, run_published

SMALL = {
    "conv_dim": [16] * 7,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 8,
    "pad_token_id": 0,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
BUCKETS = {"num_buckets": 16, "max_bucket_distance": 12}
KINDS = {
    "wav2vec2-base": ("Wav2Vec2", {"num_conv_pos_embeddings": 16}),
    "wav2vec2-large": ("Wav2Vec2", {"num_conv_pos_embeddings": 16, **LARGE}),
    "hubert-base": ("Hubert", {"num_conv_pos_embeddings": 16, "feat_proj_layer_norm": False}),
    "hubert-large": ("Hubert", {"num_conv_pos_embeddings": 16, **LARGE}),
    "wavlm-base": ("WavLM", {"num_conv_pos_embeddings": 16, **BUCKETS}),
    "wavlm-large": ("WavLM", {"num_conv_pos_embeddings": 16, **BUCKETS, **LARGE}),
    "data2vec": ("Data2VecAudio", {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}),
}
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", "E", "T", "A"]


def published(kind, head="ForCTC", **changes):
    """A small random model of `transformers`, every weight of which takes part."""
    import transformers

    name, sizes = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **sizes, **changes})
    model = getattr(transformers, name + head)(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def stored(model, folder, letters=LETTERS, **preprocessor):
    model.save_pretrained(folder)
    ids = letters if isinstance(letters, dict) else {s: i for i, s in enumerate(letters)}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"do_normalize": False, **preprocessor})
    )
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_layers_and_logits_are_those_of_transformers(kind, tmp_path):
    model = published(kind)
    bundle = read_published(stored(model, tmp_path / "m"))
    waveform, lengths = audio(8000, 8000)
    expected = run_published(model.base_model, waveform)
    with torch.no_grad():
        output = bundle.encoder(waveform, lengths, return_layers=True)
        logits, _ = bundle.ctc(waveform, lengths)
        theirs = model(waveform).logits
    for ours, layer in zip([*output.layers, output.features], expected, strict=True):
        torch.testing.assert_close(ours, layer, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, theirs, atol=1e-4, rtol=0)
    assert logits.std() > 0.05


@pytest.mark.parametrize("kind", ["wav2vec2-large", "hubert-large", "wavlm-large"])
def test_layers_and_logits_of_a_padded_batch_are_those_of_transformers(kind, tmp_path):
    model = published(kind)
    bundle = read_published(stored(model, tmp_path / "m"))
    waveform, lengths = audio(8000, 5000)
    waveform = waveform.masked_fill(torch.arange(8000) >= lengths[:, None], 0.0)
    mask = (torch.arange(8000) < lengths[:, None]).long()
    expected = run_published(model.base_model, waveform, attention_mask=mask)
    with torch.no_grad():
        output = bundle.encoder(waveform, lengths, return_layers=True)
        logits, _ = bundle.ctc(waveform, lengths)
        theirs = model(waveform, attention_mask=mask).logits
    ours = [*output.layers, output.features, logits]
    for a, b in zip(ours, [*expected, theirs], strict=True):
        for row, count in enumerate(output.lengths.tolist()):
            torch.testing.assert_close(a[row, :count], b[row, :count], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["wav2vec2-base", "hubert-base", "wavlm-base", "data2vec"])
def test_a_padded_row_is_what_transformers_makes_of_it_alone(kind, tmp_path):
    """Theirs lets padding into the group norm, or into the positions: padded, they differ."""
    model = published(kind)
    bundle = read_published(stored(model, tmp_path / "m"))
    waveform, lengths = audio(8000, 5000)
    with torch.no_grad():
        output = bundle.encoder(waveform, lengths, return_layers=True)
        logits, _ = bundle.ctc(waveform, lengths)
        for row, count in enumerate(output.lengths.tolist()):
            alone = waveform[row : row + 1, : lengths[row]]
            expected = [*run_published(model.base_model, alone), model(alone).logits]
            ours = [*output.layers, output.features, logits]
            for a, b in zip(ours, expected, strict=True):
                torch.testing.assert_close(a[row, :count], b[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["ForCTC", "Model"])
def test_what_is_written_again_is_the_same(kind, head, tmp_path):
    import transformers

    model = published(kind, head)
    bundle = load_bundle(stored(model, tmp_path / "m"))
    folder = write_published(bundle, tmp_path / "again")
    again = getattr(transformers, KINDS[kind][0] + head).from_pretrained(folder).eval()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    waveform, _ = audio(8000)
    with torch.no_grad():
        assert torch.equal(model(waveform)[0], again(waveform)[0])
    ours = load_bundle(save_bundle(bundle, tmp_path / "ours"))
    for name, tensor in bundle.encoder.state_dict().items():
        assert torch.equal(ours.encoder.state_dict()[name], tensor), name


def test_the_processor_that_is_written_reads_the_logits_as_we_do(tmp_path):
    from transformers import Wav2Vec2CTCTokenizer

    bundle = load_bundle(stored(published("wav2vec2-base"), tmp_path / "m"))
    folder = write_published(bundle, tmp_path / "again")
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder)
    ids = [5, 5, 0, 5, 6, 4, 4, 7, 0]
    assert tokenizer.decode(ids) == bundle.vocabulary.decode_ctc(ids) == "EET A"


def test_a_vocabulary_of_capitals_takes_text_in_either_case(tmp_path):
    bundle = read_published(stored(published("wav2vec2-base"), tmp_path / "m"))
    assert normalize_text("Tea at", bundle.text) == "TEA AT"
    assert bundle.vocabulary.encode("TEA") == [6, 5, 7]


def test_the_blank_comes_first_wherever_it_was(tmp_path):
    letters = ["|", "a", "b", "<pad>", "c", "d", "e", "f"]
    model = published("wav2vec2-base", pad_token_id=3)
    bundle = read_published(stored(model, tmp_path / "m", letters))
    assert bundle.vocabulary.symbols[:3] == ("<blank>", "|", "a")
    waveform, lengths = audio(8000)
    with torch.no_grad():
        theirs = model(waveform).logits
        ours, _ = bundle.ctc(waveform, lengths)
    order = [3, 0, 1, 2, 4, 5, 6, 7]
    torch.testing.assert_close(ours, theirs[..., order], atol=1e-4, rtol=0)


@pytest.fixture
def mms(tmp_path):
    """A model with adapters of two languages, as MMS is stored."""
    from safetensors.torch import save_file

    model = published("wav2vec2-large", adapter_attn_dim=6)
    words = {"swh": LETTERS, "fra": [*LETTERS[:5], "é", "b", "c"]}
    folder = stored(
        model, tmp_path / "mms", {k: {s: i for i, s in enumerate(v)} for k, v in words.items()}
    )
    model.config._name_or_path = str(folder)
    for language in words:
        torch.manual_seed(len(language) + ord(language[0]))
        weights = {n: torch.randn_like(p) * 0.1 for n, p in model._get_adapters().items()}
        save_file(weights, folder / f"adapter.{language}.safetensors")
    return model, folder


@pytest.mark.parametrize("language", ["swh", "fra"])
def test_adapters_and_vocabulary_are_those_of_the_language(mms, language):
    model, folder = mms
    model.load_adapter(language)
    bundle = read_published(folder, language)
    waveform, lengths = audio(8000, 6000)
    with torch.no_grad():
        torch.testing.assert_close(
            bundle.ctc(waveform[:1], lengths[:1])[0], model(waveform[:1]).logits, atol=1e-4, rtol=0
        )
    assert bundle.languages == ({"swh": "sw", "fra": "fr"}[language],)
    assert ("é" in bundle.vocabulary) == (language == "fra")


@pytest.mark.parametrize("code", ["sw", "swa", "swh", "swh_Latn", "swh-script_latin", "Swahili"])
def test_a_language_has_many_names(mms, code):
    _, folder = mms
    first, second = (read_published(folder, name).ctc.head.weight for name in (code, "swh"))
    assert torch.equal(first, second)


def test_a_language_without_an_adapter_is_refused(mms):
    _, folder = mms
    with pytest.raises(ModelError, match="no adapter for 'Swahilli'; the nearest: swh"):
        read_published(folder, "Swahilli")
    with pytest.raises(ModelError, match=r"no adapter for 'deu'; it has fra, swh"):
        read_published(folder, "deu")
    with pytest.raises(ModelError, match="say which language: fra, swh.*speechjepa convert"):
        read_published(folder)
    (folder / "adapter.fra.safetensors").unlink()
    with pytest.raises(ModelError, match="no adapter for 'fra'; it has swh"):
        read_published(folder, "fra")


def test_no_command_answers_in_another_language(mms, tmp_path, capsys):
    import soundfile

    from speechjepa.cli.main import main

    _, folder = mms
    soundfile.write(tmp_path / "a.wav", audio(16000)[0][0].numpy(), 16000)
    asked = ["transcribe", str(tmp_path / "a.wav"), "--model", str(folder), "-f", "json"]
    for command in (asked, ["convert", str(folder), str(tmp_path / "new")]):
        assert main([*command, "--language", "deu"]) == 2
        assert "no adapter for 'deu'; it has fra, swh" in capsys.readouterr().err
        assert main(command) == 2
        assert "say which language: fra, swh" in capsys.readouterr().err
    assert main([*asked, "--language", "Swahili"]) == 0
    assert json.loads(capsys.readouterr().out)["language"] == "sw"
    assert main(["convert", str(folder), str(tmp_path / "new"), "--language", "fr"]) == 0
    capsys.readouterr()
    asked[3] = str(tmp_path / "new")
    assert main([*asked, "--language", "sw"]) == 2
    assert "does not transcribe 'sw'" in capsys.readouterr().err
    again = ["convert", str(tmp_path / "new"), str(tmp_path / "newer")]
    assert main([*again, "--language", "sw"]) == 2
    assert "writes fr, not 'sw'" in capsys.readouterr().err
    assert main([*again, "--language", "French"]) == 0


def test_a_model_of_one_vocabulary_cannot_be_asked_for_a_language(tmp_path):
    folder = stored(published("wav2vec2-base"), tmp_path / "m")
    with pytest.raises(ModelError, match="no adapters for languages.*leave the language out"):
        load_bundle(folder, "swh")


def test_a_pretraining_checkpoint_gives_its_encoder(tmp_path):
    folder = tmp_path / "m"
    model = published("wav2vec2-base", "ForPreTraining")
    model.save_pretrained(folder)
    encoder = load_init(folder)
    waveform, lengths = audio(8000)
    expected = run_published(model.wav2vec2, normalize_waveform(waveform, lengths))[-1]
    with torch.no_grad():
        found = encoder(waveform, lengths).features
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_old_and_split_files_are_read(tmp_path):
    model = published("wav2vec2-base")
    folder = stored(model, tmp_path / "m")
    whole = read_published(folder).ctc.state_dict()
    (folder / "model.safetensors").unlink()
    tensors = {}
    for name, tensor in model.state_dict().items():
        for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
            name = name.replace(f"parametrizations.weight.{new}", old)
        tensors[name] = tensor
    names = sorted(tensors)
    parts = {"pytorch_model-00001.bin": names[::2], "pytorch_model-00002.bin": names[1::2]}
    for file, keys in parts.items():
        torch.save({key: tensors[key] for key in keys}, folder / file)
    index = {key: file for file, keys in parts.items() for key in keys}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    again = read_published(folder).ctc.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path):
    folder = stored(published("wav2vec2-base"), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())

    def refused(match, **changes):
        (folder / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(ModelError, match=match):
            load_bundle(folder)

    refused("is of the type 'whisper'; those that can be read: wav2vec2", model_type="whisper")
    refused(r"must be \(64,\) by the sizes that it is said to have, but is \(32,\)", hidden_size=64)
    refused("lacks encoder.layers.3.*does not go with the sizes", num_hidden_layers=4)
    refused("batch norm", conv_pos_batch_norm=True)
    refused("'wav2vec2-bert' .it hears 160 filterbank channels", model_type="wav2vec2-bert")
    refused("`hidden_act` must be gelu, but is 'relu'", hidden_act="relu")
    refused("1000000000 blocks, but only", num_hidden_layers=10**9)
    refused("no model has such sizes", hidden_size=10**9)
    refused(r"must be \(1000000,\)", hidden_size=10**6)
    refused("`num_attention_heads`|`num_heads`", num_attention_heads="four")
    refused("`num_heads` must be at least 1", num_attention_heads=0)
    refused("`conv_dim`|`conv_widths`", conv_dim=[16] * 6)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.json").unlink()
    with pytest.raises(ModelError, match="no vocab.json"):
        load_bundle(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="neither model.safetensors nor"):
        load_bundle(folder)


JUNK = (None, [], "x", -1, 10**12, [10**9] * 7)


def test_whatever_the_settings_say_there_is_a_model_or_one_clear_error(tmp_path, monkeypatch):
    """No lie in a JSON file costs more than an error: no other exception, and no memory."""
    folder = stored(published("wavlm-large"), tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    monkeypatch.setattr("speechjepa.models.published.read_tensors", lambda _: dict(tensors))
    files = {
        "config.json": ["model_type", "pad_token_id", "num_buckets", "max_bucket_distance"],
        "preprocessor_config.json": ["do_normalize"],
        "vocab.json": ["E"],
        "model.safetensors.index.json": ["weight_map"],
    }
    files["config.json"] += [*SIZES.values(), "num_conv_pos_embeddings", "feat_extract_norm"]
    files["config.json"] += ["do_stable_layer_norm", "hidden_act", "adapter_attn_dim"]
    refused = 0
    for name, keys in files.items():
        path = folder / name
        content = path.read_text() if path.exists() else "{}"
        for key in keys:
            for junk in JUNK:
                path.write_text(json.dumps(json.loads(content) | {key: junk}))
                try:
                    load_bundle(folder)
                except ModelError as error:
                    assert str(folder) in str(error) and len(str(error)) < 1000
                    refused += 1
        path.write_text(content)
        for damaged in ("[]", "{", "null", "[" * 10_000):
            path.write_text(damaged)
            with pytest.raises(ModelError):
                load_bundle(folder)
        path.unlink() if name.endswith("index.json") else path.write_text(content)
    assert refused > 120


def test_a_pickle_is_not_executed(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    folder = stored(published("wav2vec2-base"), tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump({"a": Harm()}, file)
    with pytest.raises(ModelError, match="more than tensors"):
        load_bundle(folder)
    assert not (tmp_path / "harm").exists()


def test_nothing_is_overwritten_and_other_encoders_are_refused(tmp_path):
    from tests.models.test_bundle import NATIVE, fine_tuned

    bundle = load_bundle(stored(published("wav2vec2-base"), tmp_path / "m"))
    with pytest.raises(DataError, match="holds something already"):
        write_published(bundle, tmp_path / "m")
    with pytest.raises(ModelError, match="no such architecture"):
        write_published(fine_tuned(NATIVE), tmp_path / "n")
