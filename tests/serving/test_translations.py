"""Translation over real connections: recordings by HTTP, live audio by a WebSocket."""

import base64
import io
import json
import socket
import zipfile
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
import soundfile
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from speechjepa.data.synthetic.espeak import synthesise
from speechjepa.errors import ConfigError
from speechjepa.inference.model import load
from speechjepa.inference.retrieval import Known, Retrieval, embed
from speechjepa.inference.transcribe import TranscribeConfig
from speechjepa.inference.translate_stream import TranslationStream
from speechjepa.serving.app import create_app
from speechjepa.serving.settings import ServingConfig
from speechjepa.serving.translators import ServedTranslator
from tests.serving.server import running, sound, wait_until
from tests.tone_model import RATE, ToneModel
from tests.translation_bundle import bundle

URL = "/v1/audio/translations"


def served(folder, **options):
    return ServedTranslator(load(bundle(folder, **options)), "xx-yy", chunk_seconds=0.32)


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return served(tmp_path_factory.mktemp("translator"))


@pytest.fixture(scope="module")
def textless(tmp_path_factory):
    return served(tmp_path_factory.mktemp("textless"), text=False)


@pytest.fixture(scope="module")
def waveform():
    said = synthesise("uno dos tres cuatro", "es").waveform
    pause = np.zeros(2 * RATE, np.float32)
    # Longer than what is heard at once, so that there are several segments.
    return np.concatenate([part for _ in range(8) for part in (said, pause)]).astype(np.float32)


@pytest.fixture(scope="module")
def recording(waveform):
    return sound(waveform)


@pytest.fixture(scope="module")
def expected(translator, recording, tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "a.wav"
    path.write_bytes(recording)
    return translator.model.translate(path)


@pytest.fixture(scope="module")
def server(translator):
    with running(ToneModel(), translator=translator, max_minutes=1.0, idle_seconds=2.0) as it:
        yield it


@pytest.fixture(autouse=True)
def nothing_is_left(server):
    yield
    wait_until(lambda: server.service.stream_places.taken == server.service.places.taken == 0)
    assert server.received() == []


def samples(answer, **options):
    assert answer.status_code == 200, answer.text
    found, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32", **options)
    assert rate == RATE
    return found


def test_the_answer_is_what_the_command_writes(server, recording, expected):
    spoken = server.post(recording, to=URL, response_format="wav")
    assert spoken.headers["content-type"] == "audio/wav"
    assert len(spoken.content) == int(spoken.headers["content-length"])
    assert np.allclose(samples(spoken), expected["speech"].clip(-1, 1), atol=1e-4)
    both = server.post(recording, to=URL, response_format="zip", name="../Zoë 1.mp3")
    archive = zipfile.ZipFile(io.BytesIO(both.content))
    assert archive.namelist() == ["Zoë 1.wav", "Zoë 1.json"]
    assert archive.read("Zoë 1.wav") == spoken.content
    described = json.loads(archive.read("Zoë 1.json"))
    assert (described["path"], described["speech"]) == ("Zoë 1.mp3", "Zoë 1.wav")
    assert described["segments"] == expected["segments"] and len(described["segments"]) > 1
    verbose = server.post(recording, to=URL, response_format="verbose_json").json()
    for key in ("language", "source_language", "duration", "text"):
        assert verbose[key] == described[key] == expected[key]
    segments = [{k: s[k] for k in expected["segments"][0]} for s in verbose["segments"]]
    assert segments == expected["segments"]


@pytest.mark.parametrize(("name", "atol"), [("flac", 1e-4), ("opus", None)])
def test_speech_comes_in_smaller_formats_too(server, recording, expected, name, atol):
    found = samples(server.post(recording, to=URL, response_format=name))
    assert len(found) == pytest.approx(len(expected["speech"]), abs=RATE / 10)
    if atol is not None:
        assert np.allclose(found, expected["speech"].clip(-1, 1), atol=atol)


def test_the_official_client_works(server, recording, expected):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    assert {model.id for model in client.models.list()} == {"tones", "xx-yy"}
    assert client.models.retrieve("xx-yy").task == "translate"
    create = client.audio.translations.create
    file = ("a.wav", recording)
    assert create(model="xx-yy", file=file, prompt="x", temperature=0).text == expected["text"]
    assert create(model="tones", file=file, response_format="text") == expected["text"] + "\n"
    verbose = create(model="xx-yy", file=file, response_format="verbose_json")
    assert (verbose.language, verbose.duration) == ("yy", expected["duration"])
    assert verbose.segments[1].avg_logprob < 0 and verbose.segments[1].units
    srt = create(model="xx-yy", file=file, response_format="srt")
    assert srt.count(" --> ") == len(expected["segments"])


def test_events_tell_each_segment_with_its_speech_when_it_is_found(server, recording, expected):
    answer = server.post(recording, to=URL, stream="true")
    events = [json.loads(e.removeprefix("data: ")) for e in answer.text.split("\n\n") if e]
    segments = [event["segment"] for event in events if "segment" in event]
    assert segments == expected["segments"]
    assert "".join(event.get("delta", "") for event in events) == expected["text"]
    said = np.zeros(len(expected["speech"]), np.float32)
    for event in events:
        if event["type"] == "speech.audio.delta":
            audio = np.frombuffer(base64.b64decode(event["audio"]), "<i2") / 32767
            first = round(event["start"] * event["sample_rate"])
            said[first : first + len(audio)] = audio
    assert np.allclose(said, expected["speech"].clip(-1, 1), atol=1e-4)
    assert (events[-1]["type"], events[-1]["text"]) == ("transcript.text.done", expected["text"])


def test_silence_is_an_answer(server):
    silence = sound(np.zeros(RATE, np.float32))
    assert server.post(silence, to=URL).json()["text"] == ""
    verbose = server.post(silence, to=URL, response_format="verbose_json").json()
    assert verbose["text"] == ""
    done = server.post(silence, to=URL, stream="true").text.split("data: ")[-1]
    assert json.loads(done)["text"] == ""
    assert not samples(server.post(silence, to=URL, response_format="wav")).any()


def test_what_a_model_does_not_have_is_said(textless, recording, tmp_path):
    with running(translator=textless) as server:
        about = server.client.get("/health").json()
        assert (about["transcribes"], about["translates"]["text"]) == (False, False)
        assert server.post(recording, to=URL).headers["content-type"] == "audio/wav"
        for name in ("json", "text", "srt", "eaf"):
            error = server.post(recording, to=URL, response_format=name).json()["error"]
            assert error["param"] == "response_format" and "writes no text" in error["message"]
        refused = server.post(recording)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "cannot_transcribe")
        assert "/v1/audio/translations" in refused.json()["error"]["message"]
    mute = served(tmp_path / "mute", voice=False, head="autoregressive")
    with running(translator=mute) as server:
        assert server.post(recording, to=URL).json()["segments"][0]["units"]
        error = server.post(recording, to=URL, response_format="wav").json()["error"]
        assert "has no voice" in error["message"]
        said, speech = converse(server, synthesise("uno dos", "es").waveform, 4000, "")
        assert said[0]["speech_sample_rate"] is None and not len(speech)
        assert said[-1]["units"] and said[-1]["text"] is None
        assert not server.client.get("/health").json()["translates"]["streams"]
    with running() as server:
        refused = server.post(to=URL)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "cannot_translate")
        assert server.client.get("/health").json()["translates"] is None


def test_a_model_that_translates_asked_to_transcribe_says_whom_to_ask(server):
    refused = server.post(model="xx-yy")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "cannot_transcribe")
    message = refused.json()["error"]["message"]
    assert "'xx-yy'" in message and "/v1/audio/translations" in message
    with connect(f"ws://127.0.0.1:{server.port}/v1/audio/stream?model=xx-yy") as socket:
        assert "?task=translate" in json.loads(socket.recv())["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "whisper-1"}, 404, "model"),
        ({"response_format": "pdf"}, 400, "response_format"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"stream": "perhaps"}, 400, "stream"),
        ({"head": "both"}, 400, "head"),
        ({"head": "retrieval"}, 400, "head"),
    ],
)
def test_wrong_fields_are_named(server, fields, status, param):
    answer = server.post(b"no audio", to=URL, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_bad_and_long_files_are_refused(server):
    for content in (b"", b"this is a text", sound(np.zeros(99, np.float32))[:30]):
        for stream in ("false", "true"):
            answer = server.post(content, to=URL, stream=stream)
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "undecodable_audio"
            assert "/tmp" not in answer.text
    long = sound(np.zeros(62 * 8000, np.float32), rate=8000, format="OGG", subtype="OPUS")
    answer = server.post(long, to=URL)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "audio_too_long")
    no_file = server.client.post(URL, files={"model": (None, "xx-yy")})
    assert (no_file.status_code, no_file.json()["error"]["param"]) == (400, "file")


def test_known_utterances_are_a_head_of_their_own(recording, waveform, tmp_path):
    folder = bundle(tmp_path)
    model = load(folder)
    known = [Known(id="a", units=(1, 2), text="one"), Known(id="b", units=(3,))]
    steps = [embed(model, waveform[:n], 1) for n in (20000, 9000)]
    Retrieval.fit(known, steps, 1).save(folder)
    with running(translator=ServedTranslator(model, "r", chunk_seconds=0.32)) as server:
        assert server.client.get("/health").json()["translates"]["heads"][1] == "retrieval"
        fields = {"head": "retrieval", "response_format": "verbose_json"}
        segment = server.post(recording, to=URL, **fields).json()["segments"][0]
        assert segment["retrieved"] in ("a", "b") and 0 <= segment["confidence"] <= 1
        assert server.post(recording, to=URL, head="retrieval", response_format="vtt").text


def test_known_utterances_that_are_damaged_stop_no_other_head(recording, tmp_path):
    folder = bundle(tmp_path)
    (folder / "retrieval").mkdir()
    (folder / "retrieval" / "known.json").write_text("{}", encoding="utf-8")
    with running(translator=ServedTranslator(load(folder), "r", chunk_seconds=0.32)) as server:
        assert server.client.get("/health").json()["translates"]["heads"] == ["translator"]
        assert server.post(recording, to=URL).status_code == 200
        answer = server.post(recording, to=URL, head="retrieval")
        assert answer.status_code == 400 and "log says why" in answer.json()["error"]["message"]


def test_a_dropped_request_stops_its_work(translator, recording, monkeypatch):
    file_translator = translator.of_files("translator")
    calls, go_on = [], []

    def slow(units):
        calls.append(units)
        wait_until(lambda: go_on)
        return np.zeros(100, np.float32)

    monkeypatch.setattr(file_translator.translator, "speak", slow)
    request = httpx.Request("POST", f"http://x{URL}", files={"file": ("a.wav", recording)})
    with running(translator=translator, workers=1) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = [f"POST {URL} HTTP/1.1", f"Host: 127.0.0.1:{server.port}"]
            head += [f"{k}: {v}" for k, v in request.headers.items() if k.startswith("content")]
            connection.sendall("\r\n".join([*head, "", ""]).encode() + request.read())
            wait_until(lambda: calls)
        dropped = "speechjepa_dropped_total 1"
        wait_until(lambda: dropped in server.client.get("/metrics").text)
        go_on.append(True)
        wait_until(lambda: server.service.places.taken == 0)
        assert len(calls) == 1 and server.received() == []


def test_many_clients_get_what_one_gets(server, recording, expected):
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: server.post(recording, to=URL).json(), range(6)))
    assert [answer["text"] for answer in answers] == [expected["text"]] * 6


def test_a_server_needs_a_model_that_does_what_is_asked(translator):
    with pytest.raises(ConfigError, match="needs a model"):
        create_app(None, name="x")
    asked = ServingConfig(transcribe=TranscribeConfig(decoder="greedy"))
    with pytest.raises(ConfigError, match="cannot transcribe"):
        create_app(None, name="x", config=asked, translator=translator)


# Live


def converse(server, waveform, size, query="?task=translate"):
    """Send samples in messages of a size, finish; return what comes back, json and samples."""
    said, speech = [], b""
    with connect(f"ws://127.0.0.1:{server.port}/v1/audio/stream{query}") as socket:
        for first in range(0, len(waveform), size):
            piece = np.round(32767 * waveform[first : first + size]).astype("<i2")
            socket.send(piece.tobytes())
        socket.send(json.dumps({"type": "finish"}))
        for message in socket:
            if isinstance(message, bytes):
                speech += message
            else:
                said.append(json.loads(message))
    return said, np.frombuffer(speech, "<i2") / 32767


@pytest.mark.parametrize("size", [3000, 16000])
def test_speech_comes_while_it_is_spoken(server, translator, waveform, size):
    heard = waveform[: 9 * RATE]
    said, speech = converse(server, heard, size)
    ready, *told = said
    assert (ready["type"], ready["task"], ready["language"]) == ("ready", "translate", "yy")
    assert (ready["model"], ready["speech_sample_rate"]) == ("xx-yy", RATE)
    stream = TranslationStream(translator.translator)
    direct = [stream.feed(np.round(32767 * heard).astype(np.float32) / 32768), stream.finish()]
    assert [unit for one in told for unit in one["units"]] == [u for d in direct for u in d.units]
    assert "".join(one["text"] for one in told).split() == "".join(d.text for d in direct).split()
    whole = np.concatenate([d.speech for d in direct]).clip(-1, 1)
    assert np.allclose(speech, whole, atol=1e-4)
    assert told[-1]["speech_seconds"] == pytest.approx(len(whole) / RATE, abs=1e-3)
    assert [one["done"] for one in told].count(True) == 1 and told[-1]["done"]
    assert any(one["endpoint"] for one in told[:-1])  # a pause was heard
    assert told[0]["seconds"] < told[-1]["seconds"] == pytest.approx(9.0)


def test_another_rate_is_resampled(server, waveform):
    said, speech = converse(server, waveform[: 3 * RATE], 4000, "?task=translate&sample_rate=8000")
    assert said[-1]["seconds"] == pytest.approx(6.0, abs=0.01) and len(speech) > RATE


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?task=sing", "transcribe or translate"),
        ("?task=translate&model=whisper-1", "whisper-1"),
        ("?task=translate&sample_rate=7", "sample_rate"),
    ],
)
def test_what_cannot_be_done_live_is_said_and_closed(server, query, says):
    with connect(f"ws://127.0.0.1:{server.port}/v1/audio/stream{query}") as socket:
        assert says in json.loads(socket.recv())["error"]["message"]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
    assert closed.value.rcvd.code == 1008


def test_who_hangs_up_in_the_middle_leaves_nothing(server, waveform):
    with connect(f"ws://127.0.0.1:{server.port}/v1/audio/stream?task=translate") as socket:
        socket.recv()
        socket.send(np.round(32767 * waveform[:RATE]).astype("<i2").tobytes())
    wait_until(lambda: server.service.stream_places.taken == 0)
