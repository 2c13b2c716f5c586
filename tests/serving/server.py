"""A real server on a free port, in a thread, with the model that hears tones."""

import io
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import soundfile

from speechjepa.inference.stream import open_stream
from speechjepa.serving.app import create_app
from speechjepa.serving.server import Server
from speechjepa.serving.settings import ServingConfig
from tests.tone_model import RATE, ToneModel, synthesize


class Running:
    """Where a server answers, and what it shares."""

    def __init__(self, server, app, port):
        self.server = server
        self.app = app
        self.service = app.state.service
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        # One for all, since making one takes longer than most answers; connections are not kept.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.client = httpx.Client(base_url=self.url, timeout=60.0, limits=limits)

    def post(
        self, content=None, *, to="/v1/audio/transcriptions", name="a.wav", timeout=60.0, **fields
    ):
        """Send a recording; without `content`, tones that say "abc def"."""
        content = wav("abc def") if content is None else content
        return self.client.post(
            to,
            files={"file": (name, content)},
            data=fields,
            timeout=timeout,
        )

    def received(self):
        """Return what lies in the folder of uploads."""
        return list(self.service.uploads.rglob("*"))


def wav(text, **options):
    """Return the bytes of a wav file that says a text."""
    return sound(synthesize(text), **options)


def sound(waveform, rate=RATE, **options):
    """Return the bytes of a file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, **{"format": "WAV", "subtype": "PCM_16", **options})
    return buffer.getvalue()


class LiveToneModel(ToneModel):
    """One that can be listened to live."""

    def stream(self, **options):
        return open_stream(self, **options)


class SlowModel(ToneModel):
    """Waits in every window until it may go on."""

    def __init__(self):
        super().__init__()
        self.go_on = threading.Event()
        self.num_windows = 0

    def logits(self, waveform, lengths):
        self.num_windows += 1
        assert self.go_on.wait(60)
        return super().logits(waveform, lengths)


@contextmanager
def running(model=None, *, translator=None, grace_seconds=1.0, **settings):
    """Run a server for the length of a block, of a model that transcribes, translates, or both."""
    config = ServingConfig(**{"workers": 2, "idle_seconds": 10.0, **settings})
    name = "tones"
    if model is None and translator is None:
        model = ToneModel()
    elif model is None:
        name = translator.name
    app = create_app(model, name=name, config=config, translator=translator)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = Server(app, grace_seconds=grace_seconds)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    here = Running(server, app, listener.getsockname()[1])
    try:
        yield here
    finally:
        here.client.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_until(condition, seconds=20.0):
    """Return when a condition holds; fail when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)
