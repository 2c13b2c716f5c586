"""The command: what it refuses, and a server from the command line to Ctrl-C."""

import importlib
import io
import re
import signal
import socket
import subprocess
import sys

import httpx
import numpy as np
import pytest
import soundfile
import torch

from speechjepa.cli.main import main
from speechjepa.models.bundle import Bundle, save_bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from speechjepa.serving.run import model_name
from speechjepa.text.vocabulary import Vocabulary
from tests.translation_bundle import bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    encoder = SpeechEncoder(SpeechEncoderConfig(width=16, num_layers=1, num_heads=1, ffn_width=16))
    vocabulary = Vocabulary.build(["a bo da"])
    bundle = Bundle(encoder=encoder, ctc=CtcModel(encoder, len(vocabulary)), vocabulary=vocabulary)
    run = tmp_path_factory.mktemp("runs") / "small"
    save_bundle(bundle, run / "finetune" / "bundle")
    return run


def test_a_server_from_the_command_line(model):
    command = [sys.executable, "-m", "speechjepa", "serve", str(model), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())[0]
        client = httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=5))
        assert client.get("/health").json()["model"] == "small"
        buffer = io.BytesIO()
        soundfile.write(buffer, np.zeros(16000), 16000, format="WAV")
        files = {"file": ("a.wav", buffer.getvalue())}
        assert client.post("/v1/audio/transcriptions", files=files).status_code == 200
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
        client.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130)
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_a_translator_from_the_command_line_alone_or_beside_a_model(model, tmp_path, capsys):
    translator = str(bundle(tmp_path / "es-en" / "translate" / "bundle").parents[1])
    for arguments, there in (
        ([translator], {"es-en"}),
        ([str(model), "--translator", translator], {"small", "es-en"}),
    ):
        command = [sys.executable, "-m", "speechjepa", "serve", *arguments, "--port", "0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            url = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())[0]
            client = httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=5))
            assert {m["id"] for m in client.get("/v1/models").json()["data"]} == there
            assert client.get("/health").json()["translates"]["model"] == "es-en"
            client.close()
        finally:
            process.kill()
            process.wait()
    for arguments, says in (
        (["--translator", str(model)], "leave --translator out"),
        (["--language", "es"], "cannot transcribe"),
    ):
        assert main(["serve", translator, *arguments]) == 2
        assert says in capsys.readouterr().err
    assert main(["serve", str(model), "--translator", str(model)]) == 2
    assert "holds no translator" in capsys.readouterr().err


def test_an_address_in_use_is_said(model, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", str(model), "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another with --host and --port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "300.1.2.3"], "300.1.2.3"),
        (["--port", "99999"], "99999"),
        (["--max_minutes", "0"], "max_minutes"),
        (["--workers", "0"], "workers"),
        (["--decoder", "beam"], "no language model"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_what_cannot_be_is_refused(model, capsys, arguments, says):
    assert main(["serve", str(model), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(model, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("speechjepa.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    importlib.import_module("speechjepa.serving.settings")  # needs nothing of it
    assert main(["serve", str(model)]) == 2
    assert 'pip install "speechjepa[serve]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "name"),
    [("runs/x", "x"), ("runs/x/finetune/bundle", "x"), ("shipped", "shipped"), ("/", "speechjepa")],
)
def test_a_model_is_called_by_its_folder(path, name):
    assert model_name(path) == name
