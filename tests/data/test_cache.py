"""A corpus is decoded once, bad files are listed and skipped, and no interruption leaves a trap."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechjepa.data import cache as cache_module
from speechjepa.data.cache import Skipped, build_cache, write_skipped
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError


def record(folder: Path, name: str, seconds: float = 0.5, seed: int = 0, rate: int = 16000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).uniform(-1, 1, int(seconds * rate))
    soundfile.write(folder / name, samples, rate, subtype="PCM_16")
    return folder / name


def utterance(path: Path, **fields) -> Utterance:
    return Utterance(**{"id": path.stem, "audio_path": path, "source": "list:1"} | fields)


def corpus(folder: Path, count: int = 3) -> list[Utterance]:
    return [utterance(record(folder, f"u{i}.wav", 0.3 + 0.1 * i, seed=i)) for i in range(count)]


@pytest.fixture
def count_decoding(monkeypatch):
    decoded: list[str] = []
    real = cache_module.stream_audio

    def counting(path, **options):
        decoded.append(Path(path).name)
        return real(path, **options)

    monkeypatch.setattr(cache_module, "stream_audio", counting)
    return decoded


def test_what_comes_out_is_what_was_recorded_to_16_bits(tmp_path):
    utterances = corpus(tmp_path / "audio")
    cache = build_cache(utterances, tmp_path / "cache")
    assert cache.utterances == utterances
    assert cache.lengths.tolist() == [4800, 6400, 8000]
    assert cache.seconds == pytest.approx(1.2)
    for i, u in enumerate(utterances):
        expected, _ = soundfile.read(u.audio_path, dtype="float32")
        found = cache.waveform(i)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 1 / 32767
        assert np.abs(found).max() <= 1.0


def test_a_stretch_is_the_same_samples_and_never_runs_into_the_next_utterance(tmp_path):
    cache = build_cache(corpus(tmp_path / "audio"), tmp_path / "cache")
    whole = cache.waveform(1)
    assert np.array_equal(cache.waveform(1, 100, 300), whole[100:300])
    assert np.array_equal(cache.waveform(1, 6000, 99_999), whole[6000:])


def test_parts_of_a_file_are_cut_and_other_rates_resampled(tmp_path):
    path = record(tmp_path / "audio", "long.wav", 1.0)
    slow = record(tmp_path / "audio", "slow.wav", 1.0, rate=8000)
    parts = [
        utterance(path, id="a", start=0.25, duration=0.5),
        utterance(path, id="b", start=0.75),
        utterance(slow),
    ]
    cache = build_cache(parts, tmp_path / "cache")
    assert cache.lengths.tolist() == [8000, 4000, 16000]
    expected, _ = soundfile.read(path, start=4000, stop=12000, dtype="float32")
    assert np.abs(cache.waveform(0) - expected).max() <= 1 / 32767


def test_files_that_cannot_be_used_are_skipped_and_listed_with_the_reason(tmp_path):
    folder = tmp_path / "audio"
    good = corpus(folder, 2)
    flac = record(folder, "cut.flac")
    flac.write_bytes(flac.read_bytes()[:3000])
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no recording")
    (folder / "folder.wav").mkdir()
    bad = {
        "cut": "cut off",
        "empty": "is empty",
        "text": "not audio",
        "folder": "is a folder",
        "missing": "does not exist",
        "short": "only 0.010 s",
    }
    record(folder, "short.wav", 0.01)
    paths = [folder / "cut.flac", *(folder / f"{name}.wav" for name in list(bad)[1:])]
    utterances = [good[0], *map(utterance, paths), good[1]]
    cache = build_cache(utterances, tmp_path / "cache", num_threads=2)
    assert [u.id for u in cache.utterances] == ["u0", "u1"]
    assert cache.lengths.tolist() == [4800, 6400]
    assert [s.id for s in cache.skipped] == list(bad)
    for entry, path in zip(cache.skipped, paths, strict=True):
        assert bad[entry.id] in entry.reason
        assert entry.audio_path == str(path) and entry.source == "list:1"
    again = build_cache(utterances, tmp_path / "cache")
    assert again.skipped == cache.skipped


def test_many_files_keep_their_order(tmp_path):
    path = record(tmp_path / "audio", "long.wav", 2.0)
    parts = [utterance(path, id=str(i), start=i * 0.01, duration=0.1) for i in range(60)]
    cache = build_cache(parts, tmp_path / "cache", num_threads=3)
    whole, _ = soundfile.read(path, dtype="float32")
    for i in range(60):
        first = round(i * 160)
        assert np.abs(cache.waveform(i) - whole[first : first + 1600]).max() <= 1 / 32767


def test_a_second_call_does_not_decode_again(tmp_path, count_decoding):
    utterances = corpus(tmp_path / "audio")
    first = build_cache(utterances, tmp_path / "cache")
    assert sorted(count_decoding) == ["u0.wav", "u1.wav", "u2.wav"]
    second = build_cache(utterances, tmp_path / "cache")
    assert len(count_decoding) == 3
    assert second.folder == first.folder
    assert np.array_equal(second.waveform(2), first.waveform(2))


@pytest.mark.parametrize("change", ["content", "stretch", "order", "rate"])
def test_anything_that_changes_the_audio_is_decoded_again(tmp_path, change):
    utterances = corpus(tmp_path / "audio")
    before = build_cache(utterances, tmp_path / "cache")
    rate = 16000
    if change == "content":
        path = record(tmp_path / "audio", "u0.wav", 0.3, seed=9)  # as long as it was
        os.utime(path, ns=(0, 12345))
    elif change == "stretch":
        utterances[0] = utterance(utterances[0].audio_path, start=0.1)
    elif change == "order":
        utterances.reverse()
    else:
        rate = 8000
    after = build_cache(utterances, tmp_path / "cache", sample_rate=rate)
    assert after.folder != before.folder
    assert not np.array_equal(after.waveform(0), before.waveform(0))


def test_a_missing_file_is_used_once_it_is_there(tmp_path):
    utterances = [*corpus(tmp_path / "audio", 1), utterance(tmp_path / "audio" / "late.wav")]
    assert len(build_cache(utterances, tmp_path / "cache")) == 1
    record(tmp_path / "audio", "late.wav")
    assert len(build_cache(utterances, tmp_path / "cache")) == 2


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    utterances = corpus(tmp_path / "audio")

    def interrupted(path, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "stream_audio", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_cache(utterances, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(build_cache(utterances, tmp_path / "cache")) == 3


def test_what_a_killed_process_left_does_not_matter(tmp_path):
    utterances = corpus(tmp_path / "audio")
    folder = build_cache(utterances, tmp_path / "elsewhere").folder
    partial = tmp_path / "cache" / f"{folder.name}.partial-0123456789ab"
    partial.mkdir(parents=True)
    (partial / "audio.i16").write_bytes(b"\0\0")
    assert build_cache(utterances, tmp_path / "cache").lengths.tolist() == [4800, 6400, 8000]


def test_what_a_killed_process_left_long_ago_is_removed(tmp_path):
    utterances = corpus(tmp_path / "audio")
    for name, age in (("old", 2 * cache_module.ABANDONED_SECONDS), ("busy", 60)):
        audio = tmp_path / "cache" / f"{name}.partial-0123456789ab" / "audio.i16"
        audio.parent.mkdir(parents=True)
        audio.write_bytes(b"\0\0")
        os.utime(audio, (time.time() - age,) * 2)
    folder = build_cache(utterances, tmp_path / "cache").folder
    assert {path.name for path in folder.parent.iterdir()} == {
        folder.name,
        "busy.partial-0123456789ab",
    }


def test_a_long_recording_waits_on_the_disk_and_is_the_same(tmp_path, monkeypatch):
    utterances = corpus(tmp_path / "audio")
    expected = build_cache(utterances, tmp_path / "memory")
    monkeypatch.setattr(cache_module, "SPOOL_BYTES", 1000)
    cache = build_cache(utterances, tmp_path / "disk")
    assert sorted(os.listdir(cache.folder)) == ["audio.i16", "index.json"]
    for i in range(3):
        assert np.array_equal(cache.waveform(i), expected.waveform(i))


def test_a_file_that_may_be_read_at_last_is_used(tmp_path, monkeypatch):
    utterances = corpus(tmp_path / "audio")
    denied = str(utterances[1].audio_path)
    real_open, real_access = open, os.access

    def deny(path, *args, **options):
        if str(path) == denied:
            raise PermissionError(13, "Permission denied")
        return real_open(path, *args, **options)

    with monkeypatch.context() as patch:  # the superuser may read whatever the mode is
        patch.setattr("builtins.open", deny)
        patch.setattr(os, "access", lambda p, mode: str(p) != denied and real_access(p, mode))
        assert [u.id for u in build_cache(utterances, tmp_path / "cache").utterances] == [
            "u0",
            "u2",
        ]
    assert len(build_cache(utterances, tmp_path / "cache")) == 3


@pytest.mark.parametrize("damage", ["cut", "index", "no index", "no audio"])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    utterances = corpus(tmp_path / "audio")
    before = build_cache(utterances, tmp_path / "cache")
    expected, folder = before.waveform(2).copy(), before.folder
    del before
    audio, index = folder / "audio.i16", folder / "index.json"
    if damage == "cut":
        audio.write_bytes(audio.read_bytes()[:-1001])
    elif damage == "index":
        index.write_text(index.read_text()[:20])
    else:
        (index if damage == "no index" else audio).unlink()
    after = build_cache(utterances, tmp_path / "cache")
    assert after.folder == folder
    assert np.array_equal(after.waveform(2), expected)


def _build(folder: Path, barrier, results) -> None:
    utterances = [utterance(path) for path in sorted((folder / "audio").iterdir())]
    barrier.wait()
    cache = build_cache(utterances, folder / "cache", num_threads=1)
    results.put((cache.folder.name, float(np.abs(cache.waveform(2)).sum())))


def test_two_processes_that_build_at_once_get_the_same_cache(tmp_path):
    corpus(tmp_path / "audio", 20)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_build, args=(tmp_path, barrier, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert found[0] == found[1]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_loser_of_a_race_uses_the_winners_cache(tmp_path, monkeypatch):
    utterances = corpus(tmp_path / "audio")
    real = cache_module._fill

    def slow(given, folder, *rest):
        real(given, folder, *rest)
        with monkeypatch.context() as patch:
            patch.setattr(cache_module, "_fill", real)
            build_cache(utterances, tmp_path / "cache")  # another process is faster

    monkeypatch.setattr(cache_module, "_fill", slow)
    cache = build_cache(utterances, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [cache.folder]
    assert len(cache) == 3


def test_no_more_than_a_few_files_are_decoded_ahead(tmp_path, count_decoding):
    path = record(tmp_path / "audio", "long.wav", 2.0)
    parts = [utterance(path, id=str(i), start=i * 0.01, duration=0.1) for i in range(60)]
    decoded = cache_module._decode(parts, tmp_path, 16000, 2)
    next(decoded)
    assert len(count_decoding) <= 5
    decoded.close()
    assert len(count_decoding) <= 5


def test_a_copy_for_another_process_carries_no_audio(tmp_path):
    path = record(tmp_path / "audio", "long.wav", 4.0)
    cache = build_cache([utterance(path)], tmp_path / "cache")
    copy = pickle.dumps(cache)
    assert len(copy) < 5000
    assert np.array_equal(pickle.loads(copy).waveform(0), cache.waveform(0))  # noqa: S301


def test_nothing_to_decode_is_an_error_that_gives_the_first_reason(tmp_path):
    missing = utterance(tmp_path / "missing.wav")
    with pytest.raises(DataError, match=r"none of 1 utterances .*missing\.wav: does not exist"):
        build_cache([missing], tmp_path / "cache")
    with pytest.raises(DataError, match="none of 0 utterances can be decoded: there are none"):
        build_cache([], tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(DataError, match=r"cache: the audio cache cannot be written"):
        build_cache(corpus(tmp_path / "audio"), tmp_path / "cache")


def skipped(name: str, path: str = "a.wav") -> Skipped:
    return Skipped(id=name, audio_path=path, source="list:1", reason="is empty")


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def test_each_skipped_utterance_is_written_once(tmp_path):
    path = tmp_path / "skipped.jsonl"
    write_skipped([skipped("a"), skipped("b"), skipped("a")], path)
    write_skipped([skipped("b"), skipped("c")], path)
    assert [entry["id"] for entry in read_lines(path)] == ["a", "b", "c"]
    assert read_lines(path)[0] == vars(skipped("a"))


def test_utterances_of_two_corpora_may_share_an_id(tmp_path):
    path = tmp_path / "skipped.jsonl"
    write_skipped([skipped("a", "one/a.wav"), skipped("a", "two/a.wav")], path)
    assert [entry["audio_path"] for entry in read_lines(path)] == ["one/a.wav", "two/a.wav"]


def test_strange_file_names_are_written_and_written_once(tmp_path):
    path = tmp_path / "skipped.jsonl"
    strange = ["caf\udce9.wav", "line\u2028break.wav", "new\nline.wav", "mbɔ́si.wav"]
    for _ in range(2):
        write_skipped([skipped(str(i), name) for i, name in enumerate(strange)], path)
    assert [entry["audio_path"] for entry in read_lines(path)] == strange
