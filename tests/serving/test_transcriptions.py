"""The HTTP interface, over real connections."""

import functools
import json
import math
import threading
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest

from speechjepa.errors import ModelError
from speechjepa.inference import spoken_language
from speechjepa.serving.app import create_app
from tests.serving.server import SlowModel, running, sound, wait_until, wav
from tests.tone_model import RATE, ToneModel, synthesize

SAID = "abc def" + "_" * 20 + "gh"


@pytest.fixture(scope="module")
def server():
    with running(max_minutes=1.0, max_upload_mb=8.0) as it:
        yield it


def events_of(response):
    lines = response.text.split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


def test_the_answer_is_the_text(server):
    answer = server.post(wav(SAID), model="tones")
    assert answer.status_code == 200
    assert answer.json()["text"] == "abc def gh"


def test_only_the_file_is_needed_and_other_formats_are_read(server):
    for kind, subtype in (("FLAC", "PCM_16"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")):
        content = sound(synthesize("_abc_"), format=kind, subtype=subtype)
        assert server.post(content).json()["text"] == "abc", kind


def test_verbose_json_has_segments_and_words_with_times_and_scores(server):
    answer = server.post(
        wav(SAID),
        response_format="verbose_json",
        **{"timestamp_granularities[]": ["word", "segment"]},
    ).json()
    assert answer["task"] == "transcribe"
    assert answer["language"] == "xx"
    assert answer["duration"] == pytest.approx(len(synthesize(SAID)) / RATE)
    assert [segment["text"] for segment in answer["segments"]] == ["abc def", "gh"]
    assert [word["word"] for word in answer["words"]] == ["abc", "def", "gh"]
    first = answer["words"][0]
    assert (first["start"], first["end"]) == (0.0, pytest.approx(0.34, abs=0.03))
    assert 0.9 < first["score"] <= 1
    segment = answer["segments"][1]
    assert segment["avg_logprob"] == pytest.approx(math.log(segment["score"]), abs=1e-3)


@pytest.mark.parametrize(
    ("asked", "present", "absent"),
    [
        ([], "segments", "words"),
        (["word"], "words", "segments"),
        (["segment"], "segments", "words"),
    ],
)
def test_granularities_choose_what_is_shown(server, asked, present, absent):
    fields = {"timestamp_granularities[]": asked} if asked else {}
    answer = server.post(response_format="verbose_json", **fields).json()
    assert present in answer
    assert absent not in answer


def test_subtitles_and_plain_text(server):
    assert server.post(response_format="text").text == "abc def\n"
    srt = server.post(response_format="srt").text
    assert srt.startswith("1\n00:00:00,000 --> 00:00:0")
    assert srt.endswith("abc def\n\n")
    vtt = server.post(response_format="vtt")
    assert vtt.text.startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert vtt.headers["content-type"] == "text/vtt; charset=utf-8"


def test_an_elan_document_names_the_recording_without_its_folders(server):
    answer = server.post(name="../../etc/Zoë 故事.wav", response_format="eaf")
    document = ElementTree.fromstring(answer.content)
    assert document.find(".//MEDIA_DESCRIPTOR").get("RELATIVE_MEDIA_URL") == "./Zoë 故事.wav"
    values = [value.text for value in document.iter("ANNOTATION_VALUE")]
    assert values == ["abc def", "abc", "def"]


def test_events_tell_each_segment_when_it_is_found(server):
    answer = server.post(wav(SAID), stream="true")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer)
    assert "".join(e.get("delta", "") for e in events) == "abc def gh"
    segments = [e["segment"] for e in events if "segment" in e]
    assert [word["word"] for word in segments[0]["words"]] == ["abc", "def"]
    total = pytest.approx(len(synthesize(SAID)) / RATE)
    assert all(e["total_seconds"] == total for e in events[:-1])
    assert (events[-1]["type"], events[-1]["text"]) == ("transcript.text.done", "abc def gh")


def test_the_official_client_works(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["tones"]
    assert client.models.retrieve("tones").owned_by == "speechjepa"
    create = client.audio.transcriptions.create
    file = ("a.wav", wav(SAID))
    assert create(model="tones", file=file).text == "abc def gh"
    assert create(model="tones", file=file, response_format="text") == "abc def gh\n"
    verbose = create(
        model="tones",
        file=file,
        language="xx",
        prompt="names that are said",
        temperature=0.2,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert type(verbose).model_validate(verbose.model_dump()).text == "abc def gh"
    assert [word.word for word in verbose.words] == ["abc", "def", "gh"]
    assert verbose.segments[1].start == verbose.words[2].start
    events = list(create(model="tones", file=file, stream=True))
    assert events[-1].type == "transcript.text.done"
    assert "".join(getattr(event, "delta", "") for event in events) == "abc def gh"
    with pytest.raises(openai.BadRequestError, match="not audio"):
        create(model="tones", file=("a.wav", b"this is a text"))
    with pytest.raises(openai.NotFoundError, match="'tones'"):
        create(model="whisper-1", file=file)


def test_hotwords_are_preferred_and_refused_where_they_cannot_be_written(server):
    assert server.post(wav("ab"), hotwords="ab, cd").json()["text"] == "ab"
    answer = server.post(wav("ab"), hotwords="xyz")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "hotwords"


def test_language_auto_is_heard_where_the_model_can(monkeypatch):
    class Bilingual(ToneModel):
        languages = ("xx", "yy")
        language_classifier = object()

    heard = [("yy", 0.75), ("xx", 0.25)]
    monkeypatch.setattr(spoken_language, "hear_language", lambda *_: heard)
    with running(Bilingual()) as server:
        assert server.client.get("/health").json()["hears_language"]
        answer = server.post(language="auto", response_format="verbose_json").json()
        assert (answer["language"], answer["language_probability"]) == ("yy", 0.75)
        named = server.post(language="xx", response_format="verbose_json").json()
        assert (named["language"], "language_probability" in named) == ("xx", False)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "whisper-1"}, 404, "model"),
        ({"language": "fr"}, 400, "language"),
        ({"response_format": "pdf"}, 400, "response_format"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"temperature": "nan"}, 400, "temperature"),
        ({"temperature": "3"}, 400, "temperature"),
        ({"stream": "perhaps"}, 400, "stream"),
        ({"timestamp_granularities[]": "word"}, 400, "timestamp_granularities"),
        (
            {"timestamp_granularities[]": "letter", "response_format": "verbose_json"},
            400,
            "timestamp_granularities",
        ),
        ({"hotwords": "a," * 3}, 200, None),
        ({"hotwords": ",".join(map(str, range(300)))}, 400, "hotwords"),
    ],
)
def test_wrong_fields_are_named(server, fields, status, param):
    answer = server.post(**fields)
    assert answer.status_code == status
    if status != 200:
        error = answer.json()["error"]
        assert (error["param"], error["type"]) == (param, "invalid_request_error")
        assert set(error) == {"message", "type", "param", "code"}


def test_unknown_addresses_and_methods_have_the_same_shape(server):
    assert server.client.get("/nothing").json()["error"]["type"] == "invalid_request_error"
    assert server.client.get("/nothing").status_code == 404
    assert server.client.get("/v1/audio/transcriptions").status_code == 405
    assert server.client.get("/v1/models/other").status_code == 404


def test_health_and_metrics_say_what_happens():
    with running() as server:
        server.post()
        server.post(b"no audio")
        health = server.client.get("/health").json()
        assert (health["status"], health["model"], health["transcribing"]) == ("ok", "tones", 0)
        lines = server.client.get("/metrics").text.splitlines()
        path = 'path="/v1/audio/transcriptions"'
        assert f'speechjepa_requests_total{{{path},status="200"}} 1' in lines
        assert f'speechjepa_requests_total{{{path},status="400"}} 1' in lines
        assert f'speechjepa_request_seconds_bucket{{{path},le="+Inf"}} 2' in lines
        assert f"speechjepa_request_seconds_count{{{path}}} 2" in lines
        assert "speechjepa_requests_in_progress 0" in lines
        (audio,) = [line for line in lines if line.startswith("speechjepa_audio_seconds_total")]
        assert float(audio.split()[1]) == pytest.approx(len(synthesize("abc def")) / RATE)


def test_fifty_clients_at_once_lose_nothing():
    texts = [f"{a}{b} {b}{a}" for a in "abcdefgh" for b in "abcdefgh" if a != b][:50]
    with running(workers=2) as server, ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda text: server.post(wav(text)), texts))
    assert [answer.status_code for answer in answers] == [200] * 50
    assert [answer.json()["text"] for answer in answers] == texts


LONG = sound(np.zeros(200 * RATE, np.float32), subtype="PCM_U8")


def test_one_recording_has_all_cores_and_two_share_them(monkeypatch):
    import torch

    given = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    model = SlowModel()
    with running(model, workers=2) as server, ThreadPoolExecutor(2) as pool:
        server.service.num_threads = 4
        one = pool.submit(server.post)
        wait_until(lambda: model.num_windows == 1)
        assert set(given) == {4}
        given.clear()
        two = pool.submit(server.post)
        wait_until(lambda: model.num_windows == 2)
        assert set(given) == {2}
        model.go_on.set()
        assert [one.result().status_code, two.result().status_code] == [200, 200]
        assert server.service.workers.num_running == 0


def test_one_more_than_may_wait_is_told_to_come_back():
    model = SlowModel()
    with running(model, workers=1, max_waiting=1) as server, ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(server.post) for _ in range(2)]
        wait_until(lambda: server.service.places.taken == 2)
        refused = server.post()
        model.go_on.set()
        assert [future.result().status_code for future in accepted] == [200, 200]
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "5"
        assert refused.json()["error"]["code"] == "busy"
        assert server.post().status_code == 200


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_dropped_request_stops_its_work_and_leaves_nothing(stream):
    model = SlowModel()
    with running(model, workers=1, max_waiting=3) as server:
        for _ in range(2):  # the second waits in the queue
            with pytest.raises(httpx.ReadTimeout):
                server.post(LONG, stream=stream, timeout=0.5)
        assert model.num_windows == 1
        wait_until(lambda: server.service.places.taken == 1)
        model.go_on.set()
        wait_until(lambda: server.service.places.taken == 0)
        assert model.num_windows == 1
        assert server.received() == []
        assert server.post().json()["text"] == "abc def"
        assert "speechjepa_dropped_total 2" in server.client.get("/metrics").text


def test_stopping_the_server_stops_the_work_and_removes_what_was_received():
    model = SlowModel()
    with ThreadPoolExecutor(1) as pool:
        with running(model) as server:
            answer = pool.submit(server.post, LONG)
            wait_until(lambda: model.num_windows == 1)
            model.go_on.set()
            folder = server.service.uploads
        assert not folder.exists()
        try:
            assert answer.result().status_code in (200, 500, 503)
        except httpx.TransportError:
            pass


class StuckModel(SlowModel):
    """Hears the first window of each recording at once, and waits in the others."""

    def logits(self, waveform, lengths):
        if self.num_windows == 0:
            self.num_windows = 1
            return ToneModel.logits(self, waveform, lengths)
        return super().logits(waveform, lengths)


def test_who_waits_when_the_server_ends_is_told(capsys):
    model = SlowModel()
    with ThreadPoolExecutor(2) as pool:
        with running(model, workers=1, grace_seconds=0.1) as server:
            worked_on = pool.submit(server.post, LONG)
            wait_until(lambda: model.num_windows == 1)
            queued = pool.submit(server.post, LONG, stream="true")
            wait_until(lambda: server.service.places.taken == 2)
            server.server.should_exit = True
            for answer in (worked_on.result(), queued.result()):
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "shutting_down"
            model.go_on.set()
    assert model.num_windows == 1
    assert capsys.readouterr().err == ""


def test_events_end_with_an_error_when_the_server_ends(capsys):
    model = StuckModel()
    with ThreadPoolExecutor(1) as pool:
        with running(model, grace_seconds=0.1) as server:
            answer = pool.submit(server.post, LONG, stream="true")
            wait_until(lambda: model.num_windows == 2)
            server.server.should_exit = True
            kinds = [event.get("type", "error") for event in events_of(answer.result())]
            assert kinds[0] == "transcript.text.delta" and kinds[-1] == "error"
            assert "shutting_down" in answer.result().text
            model.go_on.set()
    assert capsys.readouterr().err == ""


def test_a_short_request_is_answered_though_the_server_is_to_end():
    model = SlowModel()
    with ThreadPoolExecutor(1) as pool:
        with running(model, grace_seconds=10.0) as server:
            answer = pool.submit(server.post)
            wait_until(lambda: model.num_windows == 1)
            server.server.should_exit = True
            model.go_on.set()
            assert answer.result().json()["text"] == "abc def"


def test_who_still_sends_when_the_server_ends_is_told(capsys):
    arrived, go_on = threading.Event(), threading.Event()

    def body():
        yield b"--b\r\n"
        arrived.set()
        go_on.wait(30)

    head = {"content-type": "multipart/form-data; boundary=b"}
    url = "/v1/audio/transcriptions"
    with ThreadPoolExecutor(1) as pool:
        with running(grace_seconds=0.0) as server:
            send = functools.partial(server.client.post, url, content=body(), headers=head)
            answer = pool.submit(send)
            wait_until(lambda: arrived.is_set() and server.service.places.taken == 1)
            server.server.should_exit = True
            wait_until(lambda: server.service.places.taken == 0)
            go_on.set()
            assert answer.result().json()["error"]["code"] == "shutting_down"
    assert "Traceback" not in capsys.readouterr().err


def test_a_model_that_cannot_transcribe_is_not_served():
    class Pretrained(ToneModel):
        @property
        def vocabulary(self):
            raise ModelError("it was pretrained but not fine-tuned")

    with pytest.raises(ModelError, match="not fine-tuned"):
        create_app(Pretrained(), name="x")
