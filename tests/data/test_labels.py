"""Choosing labels: the same ten minutes everywhere."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from speechjepa.audio.files import write_wav
from speechjepa.data.labels import select_labels
from speechjepa.data.utterance import Utterance
from speechjepa.errors import ConfigError, DataError


def corpus(count: int = 60, seconds: float | None = 5.0) -> list[Utterance]:
    return [
        Utterance(
            id=f"u{number:03}",
            audio_path=Path(f"/nowhere/{number}.wav"),
            duration=seconds,
            text=None if number % 5 == 0 else f"words {number}",
            source=f"metadata.jsonl:{number + 1}",
        )
        for number in range(count)
    ]


def ids(utterances: list[Utterance]) -> list[str]:
    return [utterance.id for utterance in utterances]


def test_all_leaves_out_rows_without_text(tmp_path) -> None:
    blank = Utterance(id="blank", audio_path=Path("/nowhere/x.wav"), text="  ")
    chosen = select_labels([*corpus(), blank], "all", folder=tmp_path)
    assert len(chosen) == 48
    assert all(utterance.text and utterance.text.strip() for utterance in chosen)


def test_a_name_reads_the_list_beside_the_manifest(tmp_path) -> None:
    (tmp_path / "2min.txt").write_text("\ufeffu003\r\n\nu001\n u007 \n", encoding="utf-8")
    chosen = select_labels(corpus(), "2min", folder=tmp_path, out=tmp_path / "ids")
    assert ids(chosen) == ["u001", "u003", "u007"]
    assert (tmp_path / "ids").read_text() == "u001\nu003\nu007\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("u001\nu999\n", r"2min.txt:2: \"u999\" is not the id"),
        ("u001\n\nu005\n", r"2min.txt:3: \"u005\" has no transcript \(metadata.jsonl:6\)"),
        ("u000\nu001\nu010\n", r"2min.txt:1: 2 of its 3 ids have no transcript: \"u000\" \("),
        ("u001\nu002\nu001\n", r"2min.txt:3: \"u001\" is also on line 1"),
        ("\n\n", r"2min.txt:1: holds no ids"),
    ],
)
def test_a_wrong_list_is_refused_with_file_and_line(tmp_path, content, reason) -> None:
    (tmp_path / "2min.txt").write_text(content)
    with pytest.raises(DataError, match=reason):
        select_labels(corpus(), "2min", folder=tmp_path)


def test_a_missing_list_names_those_that_are_there(tmp_path) -> None:
    (tmp_path / "1h.txt").write_text("u001\n")
    with pytest.raises(DataError, match="10min.txt.*lists beside it: 1h"):
        select_labels(corpus(), "10min", folder=tmp_path)


def test_ids_without_transcripts_are_counted_and_the_first_named(tmp_path) -> None:
    (tmp_path / "first.txt").write_text("".join(f"u{number:03}\n" for number in range(1, 36)))
    with pytest.raises(DataError) as error:
        select_labels(corpus(), str(tmp_path / "first.txt"), folder="/nowhere")
    told = str(error.value)
    assert told.startswith(f'{tmp_path}/first.txt:5: 7 of its 35 ids have no transcript: "u005" (')
    assert '"u025" (metadata.jsonl:26) and 2 more. Transcribe what is missing, or take' in told
    assert "u030" not in told and 'labels: "all"' in told


def test_a_recording_in_a_list_stands_for_its_transcribed_stretches(tmp_path) -> None:
    audio = Path("/nowhere/a.wav")
    stretches = [
        Utterance(id="a@500", audio_path=audio, start=0.5, duration=1.0, text="one"),
        Utterance(id="a@1500-4000", audio_path=audio, start=1.5, duration=2.5),
        Utterance(id="a@4000", audio_path=audio, start=4.0, duration=1.0, text="two"),
        Utterance(id="b@0-3000", audio_path=Path("/nowhere/b.wav"), start=0.0, duration=3.0),
    ]
    (tmp_path / "first.txt").write_text("a\nu001\n", encoding="utf-8")
    chosen = select_labels([*corpus(), *stretches], "first", folder=tmp_path)
    assert ids(chosen) == ["u001", "a@500", "a@4000"]
    (tmp_path / "first.txt").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(DataError, match=r'2: "b" has no transcript'):
        select_labels([*corpus(), *stretches], "first", folder=tmp_path)


def test_transcripts_are_not_named_as_lists_and_at_most_five_lists_are(tmp_path) -> None:
    for name in ("a.wav", "a.txt", "b.MP3", "b.txt", "B.wav.txt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"lists beside it: B.wav\.$"):
        select_labels(corpus(), "nosuch", folder=tmp_path)
    (tmp_path / "B.wav.txt").unlink()
    with pytest.raises(DataError, match=r"lists beside it: none\.$"):
        select_labels(corpus(), "nosuch", folder=tmp_path)
    for number in range(7):
        (tmp_path / f"list{number}.txt").write_text("u001\n")
    with pytest.raises(DataError, match=r"list0, list1, list2, list3, list4 and 2 more\.$"):
        select_labels(corpus(), "nosuch", folder=tmp_path)


def test_a_draw_reaches_the_minutes_and_no_more_than_needed(tmp_path) -> None:
    chosen = select_labels(corpus(), {"minutes": 1.01, "seed": 3}, folder=tmp_path)
    assert len(chosen) == 13  # 65 s is the first sum of 5 s that reaches 60.6 s
    assert all(utterance.text for utterance in chosen)


def test_a_draw_does_not_depend_on_the_order_of_the_corpus(tmp_path) -> None:
    utterances = corpus()
    labels = {"minutes": 1, "seed": 3}
    first = select_labels(utterances, labels, folder=tmp_path, out=tmp_path / "a")
    random.Random(0).shuffle(utterances)
    second = select_labels(utterances, labels, folder=tmp_path, out=tmp_path / "b")
    assert set(ids(first)) == set(ids(second))
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
    assert (tmp_path / "a").read_text().split() == sorted(ids(first))


def test_ids_that_are_not_utf8_are_written_as_they_are(tmp_path) -> None:
    strange = Utterance(id="caf\udce9", audio_path=tmp_path / "x.wav", text="x", duration=1.0)
    select_labels([strange], "all", folder=tmp_path, out=tmp_path / "ids")
    assert (tmp_path / "ids").read_bytes() == b"caf\xe9\n"


def test_a_draw_is_the_same_on_every_machine(tmp_path) -> None:
    chosen = select_labels(corpus(), {"minutes": 0.4, "seed": 3}, folder=tmp_path)
    assert ids(chosen) == ["u004", "u014", "u022", "u032", "u059"]


def test_another_seed_draws_others_and_more_minutes_contain_fewer(tmp_path) -> None:
    one = set(ids(select_labels(corpus(), {"minutes": 1, "seed": 3}, folder=tmp_path)))
    two = set(ids(select_labels(corpus(), {"minutes": 2, "seed": 3}, folder=tmp_path)))
    other = set(ids(select_labels(corpus(), {"minutes": 1, "seed": 4}, folder=tmp_path)))
    assert one < two
    assert one != other


def test_a_draw_probes_durations_that_are_not_known(tmp_path) -> None:
    utterances = []
    for number in range(4):
        path = tmp_path / f"{number}.wav"
        write_wav(path, np.zeros(16000 * 3, np.float32))
        utterances.append(Utterance(id=str(number), audio_path=path, text="x"))
    utterances.append(Utterance(id="gone", audio_path=tmp_path / "gone.wav", text="x"))
    chosen = select_labels(utterances, {"minutes": 0.1}, folder=tmp_path)
    assert len(chosen) == 2
    with pytest.raises(DataError, match="only 0.2 minutes"):
        select_labels(utterances, {"minutes": 1}, folder=tmp_path)


def test_nothing_to_choose_from_is_an_error(tmp_path) -> None:
    with pytest.raises(DataError, match="none of the 1 utterances has a transcript"):
        select_labels(corpus(1), "all", folder=tmp_path)


@pytest.mark.parametrize(
    "labels",
    [
        {"minutes": 0},
        {"minutes": "10"},
        {"minutes": float("nan")},
        {"minutes": 1, "seed": 1.5},
        {"minute": 1},
        {"seed": 3},
        10,
        "../10min",
        "",
    ],
)
def test_labels_that_mean_nothing_are_refused(tmp_path, labels) -> None:
    with pytest.raises(ConfigError, match="labels"):
        select_labels(corpus(), labels, folder=tmp_path)


def test_a_gap_in_a_list_stands_for_what_was_transcribed_in_it_since(tmp_path) -> None:
    def part(name: str, start: float, text: str | None) -> Utterance:
        path = tmp_path / "s.wav"
        return Utterance(id=name, audio_path=path, start=start, duration=1.0, text=text)

    # Listed when all was a gap of 8 to 38 s and one from there to the end.
    stretches = [
        part("s@0", 0.0, "before"),
        part("s@7900", 7.9, "one"),
        part("s@9000-20000", 9.0, None),
        part("s@20000", 20.0, "two"),
        part("s@38000", 38.0, "three"),
        part("s@50000-end", 50.0, None),
    ]
    (tmp_path / "first.txt").write_text("s@8000-38000\n")
    chosen = select_labels(stretches, "first", folder=tmp_path)
    assert [u.text for u in chosen] == ["one", "two"]
    (tmp_path / "first.txt").write_text("s@38000-end\n")
    assert [u.text for u in select_labels(stretches, "first", folder=tmp_path)] == ["three"]
    (tmp_path / "first.txt").write_text("s@9000-20000\n")
    with pytest.raises(DataError, match="has no transcript"):
        select_labels(stretches, "first", folder=tmp_path)
    (tmp_path / "first.txt").write_text("s@60000-70000\n")
    with pytest.raises(DataError, match="is not the id of an utterance"):
        select_labels(stretches, "first", folder=tmp_path)
