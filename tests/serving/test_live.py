"""Live audio over a real WebSocket."""

import json
import struct

import numpy as np
import pytest
import soxr
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.serving.server import LiveToneModel, running, wait_until
from tests.tone_model import RATE, synthesize

SAID = "__abc def" + "_" * 20 + "gh__"


@pytest.fixture(scope="module")
def server():
    with running(LiveToneModel(), max_streams=2, max_minutes=0.5, idle_seconds=2.0) as it:
        yield it


@pytest.fixture(autouse=True)
def nobody_is_left(server):
    yield
    wait_until(lambda: server.service.stream_places.taken == 0)


def open_socket(server, query="", **options):
    return connect(f"ws://127.0.0.1:{server.port}/v1/audio/stream{query}", **options)


def pcm(samples):
    return np.round(32767 * samples).astype("<i2").tobytes()


def hear(socket, samples, size):
    """Send samples in messages of a size, finish, and return every answer."""
    for first in range(0, len(samples), size):
        socket.send(pcm(samples[first : first + size]))
    socket.send(json.dumps({"type": "finish"}))
    return [json.loads(message) for message in socket]


def final_words(messages):
    return [word for m in messages if m["type"] == "words" for word in m["final"]]


@pytest.mark.parametrize("size", [1600, 4801])
def test_words_come_while_it_is_spoken_and_none_is_lost(server, size):
    with open_socket(server) as socket:
        messages = hear(socket, synthesize(SAID), size)
    assert messages[0]["type"] == "ready"
    assert (messages[0]["sample_rate"], messages[0]["model"]) == (16000, "tones")
    words = final_words(messages)
    assert [word["word"] for word in words] == ["abc", "def", "gh"]
    assert words[0]["start"] == pytest.approx(0.2, abs=0.05)
    assert all(0 <= word["score"] <= 1 for word in words)
    assert [message["done"] for message in messages[1:]].count(True) == 1
    assert messages[-1]["done"] and messages[-1]["partial"] == []
    seconds = [message["seconds"] for message in messages[1:]]
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(len(synthesize(SAID)) / RATE, abs=1e-3)


def test_words_are_told_before_the_end_and_guesses_before_words(server):
    with open_socket(server) as socket:
        assert json.loads(socket.recv())["type"] == "ready"
        socket.send(pcm(synthesize("abc def" + "_" * 20)))
        guessed = []
        while not (message := json.loads(socket.recv(timeout=20)))["final"]:
            guessed += message["partial"]
        assert message["final"][0]["word"] == "abc"
        assert guessed


def test_any_sample_rate_is_resampled(server):
    samples = soxr.resample(synthesize(SAID), RATE, 44100)
    with open_socket(server, "?sample_rate=44100&language=xx&model=tones") as socket:
        words = final_words(hear(socket, samples, 4410))
    assert [word["word"] for word in words] == ["abc", "def", "gh"]
    assert words[2]["start"] == pytest.approx(3.04, abs=0.05)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?sample_rate=1", "sample_rate"),
        ("?sample_rate=fast", "sample_rate"),
        ("?sample_rate=99999999999999999999", "sample_rate"),
        ("?language=fr", "'fr'"),
        ("?model=whisper-1", "whisper-1"),
    ],
)
def test_what_cannot_be_done_is_said_and_closed(server, query, says):
    with open_socket(server, query) as socket:
        message = json.loads(socket.recv())
        assert message["type"] == "error"
        assert says in message["error"]["message"]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
    assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize(
    "message", [b"abc", "hello", "[]", '{"type": 1}', "[" * 100_000, "{" * 3], ids=range(6)
)
def test_a_message_that_is_none_of_ours_is_said_and_closed(server, message):
    with open_socket(server) as socket:
        socket.recv()
        socket.send(message)
        assert json.loads(socket.recv(timeout=20))["type"] == "error"
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)


def test_any_samples_are_audio(server):
    noise = np.random.default_rng(0).bytes(64_000)
    with open_socket(server) as socket:
        socket.recv()
        for content in (b"", struct.pack("<h", -32768) * 8000, noise):
            socket.send(content)
        socket.send('{"type": "finish"}')
        assert json.loads(list(socket)[-1])["done"]


def test_who_asks_by_http_is_told_that_it_is_a_websocket(server):
    for method in ("GET", "POST"):
        answer = server.client.request(method, "/v1/audio/stream")
        assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
        assert "is a WebSocket" in answer.json()["error"]["message"]


def test_who_says_nothing_is_let_go(server):
    with open_socket(server) as socket:
        socket.recv()
        assert json.loads(socket.recv(timeout=20))["error"]["code"] == "timeout"


def test_a_connection_ends_at_the_limit_with_its_words(server):
    samples = np.concatenate([synthesize("abc "), np.zeros(31 * RATE, np.float32)])
    with open_socket(server) as socket:
        socket.send(pcm(samples[: 20 * RATE]))
        socket.send(pcm(samples[20 * RATE :]))
        messages = []
        with pytest.raises(ConnectionClosed):
            while True:
                messages.append(json.loads(socket.recv(timeout=20)))
    assert [word["word"] for word in final_words(messages)] == ["abc"]
    assert messages[-1]["error"]["code"] == "audio_too_long"


def test_one_more_than_may_be_open_is_told_to_come_back(server):
    with open_socket(server) as one, open_socket(server) as two:
        one.recv(), two.recv()
        with open_socket(server) as three:
            assert json.loads(three.recv())["error"]["code"] == "busy"
            with pytest.raises(ConnectionClosed) as closed:
                three.recv(timeout=20)
        assert closed.value.rcvd.code == 1013
    wait_until(lambda: server.service.stream_places.taken == 0)
    with open_socket(server) as again:
        assert json.loads(again.recv())["type"] == "ready"


def test_pages_of_other_sites_may_not_listen(server):
    with pytest.raises(InvalidStatus) as refused:
        open_socket(server, origin="https://evil.example")
    assert refused.value.response.status_code == 403
    with open_socket(server, origin=server.url) as socket:
        assert json.loads(socket.recv())["type"] == "ready"
