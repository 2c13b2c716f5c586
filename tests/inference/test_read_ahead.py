import threading

import numpy as np
import pytest

from speechjepa.errors import AudioError
from speechjepa.inference import encoding, read_ahead
from speechjepa.inference.read_ahead import in_background
from speechjepa.inference.transcribe import transcribe
from speechjepa.inference.transcribe_files import transcribe_files
from tests.inference.test_chunks import ToneDetector
from tests.tone_model import RATE, ToneModel, synthesize, write


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(encoding, "make_detector", lambda name: ToneDetector())
    made = ToneModel()
    made.vad = "silero"
    return made


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        words = [
            "".join(rng.choice(list("abcdefgh"), rng.integers(1, 5))) for _ in range(i % 5 + 1)
        ]
        write(tmp_path / f"{i:02d}.wav", synthesize(" ".join(words)))
    (tmp_path / "05b.wav").write_bytes(b"no audio at all")
    write(tmp_path / "07b.wav", synthesize(("abc def" + "_" * 12) * 12))  # longer than a group
    return tmp_path


@pytest.mark.parametrize("group_seconds", [4.0, 240.0])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_files_together_give_what_each_gives_alone(
    model, folder, monkeypatch, group_seconds, batch_size
):
    monkeypatch.setattr(read_ahead, "_GROUP_SECONDS", group_seconds)
    options = {"window_seconds": 3.0, "overlap_seconds": 1.0, "batch_size": batch_size}
    outcomes = list(transcribe_files(model, [folder], **options))
    assert [outcome.path.name for outcome in outcomes] == sorted(p.name for p in folder.iterdir())
    for outcome in outcomes:
        if outcome.path.name == "05b.wav":
            assert outcome.status == "failed"
        else:
            assert outcome.result == transcribe(model, outcome.path, **options)


def test_short_files_share_batches_of_like_length(model, folder, monkeypatch):
    sizes = []
    hear = ToneModel.logits

    def logits(self, waveform, lengths):
        sizes.append(lengths.tolist())
        return hear(self, waveform, lengths)

    monkeypatch.setattr(ToneModel, "logits", logits)
    assert len(list(transcribe_files(model, [folder]))) == 14
    assert max(map(len, sizes)) >= 6
    assert all(lengths == sorted(lengths, reverse=True) for lengths in sizes)
    padded = sum(max(lengths) * len(lengths) for lengths in sizes)
    assert padded < 1.6 * sum(map(sum, sizes))


def test_the_next_files_are_read_while_the_present_ones_are_encoded(model, folder, monkeypatch):
    monkeypatch.setattr(read_ahead, "_GROUP_SECONDS", 2.0)
    threads = set()
    opened = encoding.stream_audio

    def stream(path, **options):
        threads.add(threading.current_thread().name)
        return opened(path, **options)

    monkeypatch.setattr(encoding, "stream_audio", stream)
    list(transcribe_files(model, [folder]))
    assert threads == {"read-ahead_0"}


def test_a_run_that_is_given_up_leaves_no_thread(model, folder):
    before = threading.active_count()
    outcomes = transcribe_files(model, [folder])
    next(outcomes)
    outcomes.close()
    assert threading.active_count() == before


def test_what_a_thread_makes_comes_in_order_and_what_it_raises_too():
    def make():
        yield from range(20)
        raise AudioError("a.wav", "is cut off.")

    made = []
    with pytest.raises(AudioError, match="is cut off"):
        for item in in_background(make(), ahead=2):
            made.append(item)
    assert made == list(range(20))


def test_a_thread_is_never_far_ahead_and_stops_with_its_user():
    made = []

    def make():
        for i in range(1000):
            made.append(i)
            yield i

    items = in_background(make(), ahead=3)
    assert next(items) == 0
    items.close()
    assert len(made) <= 6
    assert not [t for t in threading.enumerate() if t.name == "read-ahead"]


def test_memory_of_a_group_is_bounded(model, tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "_GROUP_SECONDS", 5.0)
    paths = [write(tmp_path / f"{i}.wav", synthesize("abc" * 8)) for i in range(12)]
    groups = []
    read_group = read_ahead._read_group

    def read(*args):
        groups.append(read_group(*args))
        return groups[-1]

    monkeypatch.setattr(read_ahead, "_read_group", read)
    list(transcribe_files(model, paths, window_seconds=4.0, overlap_seconds=1.0))
    for group in groups:
        seconds = [sum(c.end - c.start for c in read.chunks) / RATE for read in group]
        assert sum(seconds[:-1]) < 5.0
