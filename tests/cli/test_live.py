"""`speechjepa transcribe --stream` and `--mic`, as they are typed."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import speechjepa.inference.model
from speechjepa.audio import live as live_audio
from speechjepa.cli import live, transcribe
from speechjepa.errors import ConfigError
from speechjepa.inference.stream import Heard, open_stream
from tests.streaming_model import write_bundle
from tests.tone_model import ToneModel, synthesize, write

TEXT = "abc de___________fgh "


class StreamingTones(ToneModel):
    def stream(self, language=None, **options):
        return open_stream(self, language=language, **options)


@pytest.fixture
def run(monkeypatch):
    """Run the command with the model that hears tones, and bytes on standard input."""
    monkeypatch.setattr(speechjepa.inference.model, "load", lambda path, device: StreamingTones())

    def run_with(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        parser = argparse.ArgumentParser()
        transcribe.add_parser(parser.add_subparsers())
        args = parser.parse_args(["transcribe", "--model", "bundle", *map(str, arguments)])
        return transcribe.run(args)

    return run_with


def raw(text: str) -> bytes:
    return (synthesize(text) * 32767).astype("<i2").tobytes()


def test_a_pipe_gives_a_line_per_pause(run, capsys):
    assert run("--stream", "-", stdin=raw(TEXT)) == 0
    assert capsys.readouterr().out == "abc de\nfgh\n"


def test_how_far_to_look_ahead_reaches_the_stream(run):
    with pytest.raises(ConfigError, match="fine-tuned with `streaming`"):
        run("--stream", "-", "--look_ahead_seconds", "0.16", stdin=raw(TEXT))


def test_a_file_may_be_streamed(run, capsys, tmp_path):
    recording = write(tmp_path / "a.wav", synthesize(TEXT))
    assert run("--stream", recording) == 0
    assert capsys.readouterr().out == "abc de\nfgh\n"


def test_json_lines_say_what_is_final_and_what_is_not(run, capsys):
    assert run("--stream", "-", "-f", "json", stdin=raw(TEXT)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    final = [word["word"] for line in lines for word in line["final"]]
    assert final == ["abc", "de", "fgh"]
    assert any(line["partial"] and not line["final"] for line in lines)
    assert sum(line["endpoint"] for line in lines) >= 2
    assert set(lines[0]) == {"seconds", "final", "partial", "endpoint"}
    assert set(lines[-1]["final"][0] if lines[-1]["final"] else {}) <= {
        *("word", "start", "end", "score")
    }


def test_a_microphone_needs_no_file_and_ctrl_c_gives_the_last_words(run, capsys, monkeypatch):
    def read_microphone(device, sample_rate, block_seconds):
        assert (device, sample_rate, block_seconds) == ("usb", 16000, 0.32)
        yield from np.array_split(synthesize("abc de fgh"), 9)
        raise KeyboardInterrupt

    monkeypatch.setattr(live_audio, "read_microphone", read_microphone)
    assert run("--mic", "usb") == 0
    assert capsys.readouterr().out == "abc de fgh\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--stream", "a", "b"], "one file"),
        (["--stream", "-", "-f", "srt"], "json"),
        (["--stream", "-", "-o", "out"], "leave -o out"),
        (["--stream", "-", "--hotwords", "x"], "for recordings"),
        (["--stream", "-", "--compute_type", "int8"], "float32"),
        (["-", "--mic"], "no files"),
        (["--mic", "--stream"], "no files"),
    ],
)
def test_what_a_stream_cannot_do_is_said_before_a_model_is_read(run, arguments, message):
    with pytest.raises(ConfigError, match=message):
        run(*arguments)


def test_without_live_audio_a_file_is_still_required(run, capsys):
    with pytest.raises(SystemExit):
        run()
    assert "FILE|FOLDER" in capsys.readouterr().err


def word(text: str) -> dict:
    return {"word": text, "start": 0.0, "end": 1.0, "score": 1.0}


def test_a_terminal_rewrites_its_line_and_keeps_what_is_final(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    out = io.StringIO()
    terminal = live._Terminal(out)
    for heard in (
        Heard(final=[], partial=[word("ab")], seconds=1.0),
        Heard(final=[word("abc")], partial=[word("d")], seconds=2.0),
        Heard(final=[word("def")], partial=[], seconds=3.0, endpoint=True),
        Heard(final=[], partial=[word("x" * 30)], seconds=4.0),
    ):
        terminal.show(heard)
    shown = out.getvalue().split("\r\x1b[2K")[1:]
    assert shown[:3] == ["\x1b[2mab\x1b[0m", "abc \x1b[2md\x1b[0m", "abc def\n"]
    assert shown[3] == "\x1b[2m" + "x" * 19 + "\x1b[0m"  # a longer line could not be rewritten


def test_ctrl_c_never_stops_a_chunk_half_way():
    interrupt = live._Interrupt()
    seen = []
    for block in interrupt.while_waiting(iter([1, 2, 3])):
        interrupt.handle(signal.SIGINT, None)  # while a chunk is encoded: noted, not raised
        seen.append(block)
    assert seen == [1]
    with pytest.raises(KeyboardInterrupt):
        interrupt.handle(signal.SIGINT, None)  # a second one is meant


def test_words_come_while_the_pipe_is_open_and_ctrl_c_ends_cleanly(tmp_path):
    command = [sys.executable, "-m", "speechjepa", "transcribe", "--stream", "-"]
    process = subprocess.Popen(
        [
            *command,
            "--model",
            str(write_bundle(tmp_path)),
            "--device",
            "cpu",
            "-f",
            "json",
            "--vad=none",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    noise = np.random.default_rng(0).normal(0, 3000, 3 * 16000).astype("<i2").tobytes()
    process.stdin.write(noise)
    process.stdin.flush()
    first = json.loads(process.stdout.readline())  # although more may come
    assert first["seconds"] <= 3.0
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    last = json.loads(out.decode().splitlines()[-1])
    assert last["endpoint"] and last["seconds"] == 3.0
