"""What bad and hostile requests get: 4xx, and the next request its answer."""

import socket
import struct

import httpx
import numpy as np
import pytest

from speechjepa.serving.uploads import safe_name
from tests.serving.server import running, sound, wav
from tests.tone_model import RATE, ToneModel, synthesize


@pytest.fixture(scope="module")
def server():
    with running(max_minutes=1.0, max_upload_mb=2.0, idle_seconds=1.0) as it:
        yield it


@pytest.fixture(autouse=True)
def still_answers(server):
    yield
    assert server.post().json()["text"] == "abc def"
    assert server.received() == []
    assert server.service.places.taken == 0


def with_data_size(size):
    content = bytearray(wav("abc"))
    content[40:44] = struct.pack("<I", size)
    return bytes(content)


def silent_opus(seconds):
    return sound(np.zeros(seconds * 8000, np.float32), rate=8000, format="OGG", subtype="OPUS")


RATE_OF_NOTHING = wav("abc")[:24] + struct.pack("<I", 0) + wav("abc")[28:]
MANY_CHANNELS = wav("abc")[:22] + struct.pack("<H", 65535) + wav("abc")[24:]

BAD_FILES = {
    "empty": b"",
    "text": b"this is a text named wav\n" * 100,
    "truncated wav": wav("abc def")[:5000],
    "header only": wav("abc")[:44],
    "half a header": wav("abc")[:20],
    "claims 4 GB": with_data_size(0x7FFEFFFF),
    "sample rate 0": RATE_OF_NOTHING,
    "65535 channels": MANY_CHANNELS,
    "NaN": sound(np.array([0.1, np.nan, np.inf], np.float32), subtype="FLOAT"),
    "loud floats": sound(np.full(999, 1e30, np.float32), subtype="FLOAT"),
    "truncated flac": sound(synthesize("abc" * 20), format="FLAC")[:-200],
    "truncated opus": sound(synthesize("abc" * 20), format="OGG", subtype="OPUS")[:-100],
    "zip": b"PK\x03\x04" + b"\0" * 1000,
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n",
    "concat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "noise": np.random.default_rng(0).bytes(50_000),
    "html": b"<script>alert(1)</script>",
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_400_with_its_reason_and_no_path_of_ours(server, content):
    for stream in ("false", "true"):
        answer = server.post(content, stream=stream)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "undecodable_audio"
        assert error["message"].startswith("the file ")
        assert "/tmp" not in answer.text
        assert "upload" not in answer.text


def test_a_folder_of_uploads_that_was_tidied_away_is_made_again(server):
    server.service.uploads.rmdir()
    assert server.post().json()["text"] == "abc def"


def test_much_silence_in_a_small_file_are_refused_by_the_header(server):
    content = silent_opus(62)
    assert len(content) < 100_000
    answer = server.post(content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "audio_too_long")


def test_a_length_that_no_header_tells_is_limited_too():
    """ADTS has no length; what is decoded counts."""
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 90 * RATE), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    model = ToneModel()
    with running(model, max_minutes=1.0) as server:
        answer = server.post(buffer.getvalue(), name="a.aac")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "audio_too_long")
    assert sum(model.window_lengths) < 80 * RATE


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/cron.d/x", "..\\..\\x.wav", "\0\n\r.wav", "a" * 3000, ""]
)
def test_names_lead_nowhere(server, name):
    body = multipart(("file", wav("abc def"), name))
    answer = server.client.post("/v1/audio/transcriptions", content=body, headers=FORM)
    assert answer.status_code in (200, 400)


def test_safe_names_keep_what_people_write():
    assert safe_name("C:\\x\\..\\Zoë's  story – 1.wav") == "Zoë's  story – 1.wav"
    assert safe_name("../..") == ""
    assert safe_name('a<b>"c\n\x1b[31m.wav') == "abc[31m.wav"
    assert len(safe_name("a" * 999)) == 200


FORM = {"content-type": "multipart/form-data; boundary=b"}


def multipart(*parts, end=b"--b--\r\n"):
    body = b""
    for name, content, *filename in parts:
        file = f'; filename="{filename[0]}"' if filename else ""
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + end


FILE = ("file", wav("abc"), "a.wav")
BAD_FORMS = {
    "no file": (multipart(("model", b"tones")), 400),
    "two files": (multipart(FILE, FILE), 400),
    "a field instead of a file": (multipart(("file", b"x")), 400),
    "no end": (multipart(FILE, end=b""), 400),
    "nothing": (b"", 400),
    "no boundary in it": (b"hello", 400),
    "many fields": (multipart(*[("a", b"1")] * 5000, FILE), 400),
    "many headers": (b"--b\r\n" + b"X-A: 1\r\n" * 1000 + b"\r\n\r\n--b--\r\n", 400),
    "a long header": (b"--b\r\nX: " + b"a" * 100_000 + b"\r\n\r\n\r\n--b--\r\n", 400),
    "a long field": (multipart(("prompt", b"x" * 100_000), FILE), 400),
    "no name": (b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--\r\n", 400),
    "not UTF-8": (multipart(("language", b"\xff\xfe"), FILE), 400),
    "too large": (multipart(("file", b"\0" * 3_000_000, "a.wav")), 413),
}


@pytest.mark.parametrize(("body", "status"), BAD_FORMS.values(), ids=BAD_FORMS)
@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunked"])
def test_a_bad_form_is_4xx(server, body, status, declared):
    def pieces():
        for first in range(0, len(body), 50_000):
            yield body[first : first + 50_000]

    content = body if declared else pieces()
    answer = server.client.post("/v1/audio/transcriptions", content=content, headers=FORM)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
        ("multipart/form-data", 400),
        (f"multipart/form-data; boundary={'b' * 5000}", 400),
    ],
)
def test_other_content_types_are_refused(server, kind, status):
    url = "/v1/audio/transcriptions"
    answer = server.client.post(url, content=b"{}", headers={"content-type": kind})
    assert answer.status_code == status


def raw(server, head, body=b"", *, wait=True):
    """Send bytes as they are and return what comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        lines = [*head, f"Host: 127.0.0.1:{server.port}", "", ""]
        connection.sendall("\r\n".join(lines).encode() + body)
        received = b""
        while wait and (piece := connection.recv(65536)):
            received += piece
        return received


POST = "POST /v1/audio/transcriptions HTTP/1.1"
TYPE = "Content-Type: multipart/form-data; boundary=b"


def test_a_length_that_lies_is_no_harm(server):
    too_long = raw(server, [POST, TYPE, "Content-Length: 99999999999", "Connection: close"])
    assert b" 413 " in too_long.split(b"\r\n")[0]
    shorter = raw(server, [POST, TYPE, "Content-Length: 3", "Connection: close"], b"--bxxxx")
    assert b" 400 " in shorter.split(b"\r\n")[0]


def test_who_sends_nothing_more_is_let_go(server):
    answer = raw(server, [POST, TYPE, "Content-Length: 1000", "Connection: close"], b"--b\r\n")
    assert b" 408 " in answer.split(b"\r\n")[0]


def test_who_leaves_in_the_middle_of_sending_leaves_nothing(server):
    head = [POST, TYPE, "Content-Length: 1000000"]
    raw(server, head, multipart(("file", b"\0" * 9999, "a.wav"), end=b""), wait=False)


@pytest.mark.parametrize("junk", [b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\0"])
def test_what_is_not_http_is_no_harm(server, junk):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(junk + b"\r\n\r\n")
        connection.recv(1000)


def test_pages_of_other_sites_may_not_use_it(server):
    url = "/v1/audio/transcriptions"
    files = {"file": ("a.wav", wav("abc"))}
    for origin in (
        "https://evil.example",
        "null",
        "http://[::1",
        f"http://127.0.0.1:{server.port + 1}",
    ):
        answer = server.client.post(url, files=files, headers={"Origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
        assert "access-control-allow-origin" not in answer.headers
    assert server.client.post(url, files=files, headers={"Origin": server.url}).status_code == 200


def test_names_that_were_made_to_point_here_are_refused():
    from speechjepa.serving.guard import loopback_names

    assert loopback_names("0.0.0.0") == ()
    with running(allowed_hosts=loopback_names("127.0.0.1")) as server:
        assert httpx.get(f"http://localhost:{server.port}/health").status_code == 200
        headers = {"Host": f"evil.example:{server.port}"}
        assert server.client.get("/health", headers=headers).status_code == 403


TRANSCRIPT = {
    "filename": "story.wav",
    "language": "xx",
    "duration": 2.0,
    "segments": [
        {
            "start": 0,
            "end": 1,
            "text": "a <b> & \x00 ]]>",
            "words": [{"word": "a", "start": 0, "end": 0.5, "score": 0.9}],
        }
    ],
}


@pytest.mark.parametrize("name", ["txt", "srt", "vtt", "tsv", "json", "eaf", "TextGrid"])
def test_a_transcript_becomes_a_file_of_every_format(server, name):
    answer = server.client.post(f"/v1/transcripts/{name}", json=TRANSCRIPT)
    assert answer.status_code == 200
    assert "\x00" not in answer.text
    if name == "eaf":
        import xml.etree.ElementTree as ElementTree

        values = [v.text for v in ElementTree.fromstring(answer.content).iter("ANNOTATION_VALUE")]
        assert values == ["a <b> & ]]>", "a"]


BAD_TRANSCRIPTS = {
    "no json": b"{",
    "a list": b"[]",
    "NaN": b'{"duration": NaN, "segments": []}',
    "too late": b'{"duration": 1e300, "segments": []}',
    "no segments": b'{"duration": 1}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("body", BAD_TRANSCRIPTS.values(), ids=BAD_TRANSCRIPTS)
def test_a_transcript_that_is_none_is_422(server, body):
    answer = server.client.post("/v1/transcripts/srt", content=body)
    assert answer.status_code == 422


def test_an_unknown_format_is_404(server):
    answer = server.client.post("/v1/transcripts/exe", json=TRANSCRIPT)
    assert answer.status_code == 404
