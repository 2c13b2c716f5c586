"""`speechjepa check`: splits from arguments and folders, exit status, JSON, manifest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from speechjepa.audio.files import write_wav
from speechjepa.cli.main import main
from speechjepa.data.readers import read_corpus


def make_folder(folder: Path, texts: list[str], seed: int = 0) -> Path:
    """Write an AudioFolder of one-second recordings."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    lines = []
    for i, text in enumerate(texts):
        write_wav(folder / f"{i}.wav", rng.uniform(-0.1, 0.1, 8000), 8000)
        lines.append(json.dumps({"file_name": f"{i}.wav", "id": f"{folder.name}{i}", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def report_of(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_a_good_corpus_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(make_folder(tmp_path / "train", ["mama"] * 5))]) == 0
    assert "Nothing would break training" in capsys.readouterr().out


def test_warnings_exit_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(make_folder(tmp_path / "train", ["mama"] * 5 + ["q"]))]) == 0
    assert "rare_characters" in capsys.readouterr().out


def test_what_breaks_training_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(tmp_path / "train", ["mama"] * 5)
    for i in range(3):
        (folder / f"{i}.wav").write_bytes(b"no audio")
    assert main(["check", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "metadata.jsonl:1" in out and "[mostly_unusable]" in out


def test_data_that_cannot_be_read_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "train", ["mama"])
    with (folder / "metadata.jsonl").open("a") as file:
        file.write("{oops\n")
    assert main(["check", str(folder)]) == 2
    captured = capsys.readouterr()
    assert "metadata.jsonl:2" in captured.err and captured.out == ""
    assert main(["check", str(tmp_path / "nowhere")]) == 2


def test_splits_come_from_the_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path / "train", ["mama"] * 5)
    make_folder(tmp_path / "dev", ["ma"], seed=1)
    assert main(["check", str(tmp_path), "--json"]) == 0
    assert set(report_of(capsys)["totals"]["splits"]) == {"train", "dev"}


def test_splits_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = make_folder(tmp_path / "one", ["mama"] * 5)
    two = make_folder(tmp_path / "two=2", ["mama", "zz"], seed=1)
    assert main(["check", f"train={one}", f"dev={two}", "--json"]) == 0
    report = report_of(capsys)
    assert set(report["totals"]["splits"]) == {"train", "dev"}
    codes = {finding["code"] for finding in report["findings"]}
    assert {"unseen_characters", "transcripts_shared_between_splits"} <= codes


def test_a_path_with_an_equals_sign_is_a_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(make_folder(tmp_path / "a=b", ["mama"] * 5)), "--json"]) == 0
    assert set(report_of(capsys)["totals"]["splits"]) == {"a=b"}


def test_the_manifest_is_read_back_with_splits_and_durations(tmp_path: Path) -> None:
    train = make_folder(tmp_path / "train", ["mama"] * 5)
    manifest = tmp_path / "manifest.jsonl"
    assert main(["check", str(train), "--write", str(manifest)]) == 0
    utterances = read_corpus(manifest)
    assert [u.split for u in utterances] == ["train"] * 5
    assert [u.duration for u in utterances] == [1.0] * 5
    assert [u.text for u in utterances] == ["mama"] * 5


def test_a_manifest_in_the_folder_that_it_lists_is_said_to_stand_for_it(tmp_path, capsys) -> None:
    train = make_folder(tmp_path / "train", ["mama"] * 5)
    assert main(["check", str(train), "--write", str(tmp_path / "manifest.jsonl")]) == 0
    assert "from now on" not in capsys.readouterr().err
    assert main(["check", str(train), "--write", str(train / "manifest.jsonl")]) == 0
    assert "from now on" not in capsys.readouterr().err  # metadata.jsonl is read before it
    (train / "manifest.jsonl").unlink()
    (train / "metadata.jsonl").unlink()
    assert main(["check", str(train), "--write", str(train / "manifest.jsonl")]) == 0
    assert f"{train} is read by this list from now on" in capsys.readouterr().err
    write_wav(train / "new.wav", np.full(16000, 0.1))
    assert len(read_corpus(train)) == 5
    (train / "manifest.jsonl").unlink()
    assert len(read_corpus(train)) == 6


def test_splits_that_share_ids_make_a_manifest_that_can_be_read(tmp_path: Path, capsys) -> None:
    for split, level in (("one", 0.1), ("two", 0.2)):
        (tmp_path / split).mkdir()
        write_wav(tmp_path / split / "001.wav", np.full(16000, level))
        (tmp_path / split / "001.txt").write_text("mama")
    manifest = tmp_path / "manifest.jsonl"
    main(["check", f"train={tmp_path}/one", f"dev={tmp_path}/two", "--write", str(manifest)])
    assert "SPLIT/ID" in capsys.readouterr().err
    assert [(u.id, u.split) for u in read_corpus(manifest)] == [
        ("train/001", "train"),
        ("dev/001", "dev"),
    ]


def test_what_the_reader_found_is_in_the_report(tmp_path: Path, capsys) -> None:
    write_wav(tmp_path / "a.wav", np.full(16000, 0.1))
    (tmp_path / "a.txt").write_text("mama")
    (tmp_path / "a.TXT").write_text("mama")
    assert main(["check", str(tmp_path), "--json"]) == 0
    assert "several_transcripts" in {f["code"] for f in report_of(capsys)["findings"]}


def unread_columns(folder: Path, capsys, header: str, *values: str) -> list[str]:
    for number, _ in enumerate(values):
        write_wav(folder / f"{number}.wav", np.full(16000, 0.1 + 0.1 * number))
    rows = [f"{number}.wav,{value}\n" for number, value in enumerate(values)]
    (folder / "metadata.csv").write_text(f"file_name,{header}\n" + "".join(rows))
    main(["check", str(folder), "--json"])
    return [f["title"] for f in report_of(capsys)["findings"] if f["code"] == "unread_columns"]


def test_columns_that_may_hold_the_transcripts_are_named(tmp_path: Path, capsys) -> None:
    header = "sentense,notes,gender,size"
    assert unread_columns(tmp_path, capsys, header, "mama,old,f,4", "papa,,m,5") == [
        f"{tmp_path.name} has no transcripts, and columns that are not read: sentense, notes"
    ]


@pytest.mark.parametrize(
    ("header", "value"),
    [("text,notes", "mama,old"), ("translation,target_audio,key", "mother,0.wav,a"), ("size", "4")],
)
def test_columns_that_hold_no_transcripts_are_no_finding(
    tmp_path: Path, capsys, header: str, value: str
) -> None:
    assert unread_columns(tmp_path, capsys, header, value) == []


def test_what_cannot_be_written_is_said_before_the_listening(tmp_path: Path, capsys) -> None:
    folder = make_folder(tmp_path / "train", ["mama"])
    assert main(["check", str(folder), "--write", str(folder / "0.wav" / "x.jsonl")]) == 2
    captured = capsys.readouterr()
    assert "x.jsonl: cannot be written" in captured.err and captured.out == ""


def test_columns_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(tmp_path / "train", ["mama"])
    table = tmp_path / "train" / "list.csv"
    table.write_text("Ton,Wort\n0.wav,papa\n")
    assert main(["check", str(table)]) == 2
    assert "--column audio=" in capsys.readouterr().err
    flags = ["--column", "audio=Ton", "--column", "text=Wort", "--json"]
    assert main(["check", str(table), *flags]) == 0
    assert {c["character"] for c in report_of(capsys)["characters"]} == {"p", "a"}
    assert main(["check", str(folder), "--column", "audio"]) == 2


def test_names_that_are_not_utf8_are_printed_as_escapes(tmp_path: Path) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    Path(strange).touch()
    for name in ("a.wav", "b.wav"):
        write_wav(tmp_path / name, np.full(16000, 0.1))
    # A process of its own: only a real standard output is strict.
    for flags in ([], ["--json"]):
        command = [sys.executable, "-m", "speechjepa", "check", str(tmp_path), *flags]
        done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2])
        assert done.returncode == 0 and b"udce9" in done.stdout, done.stderr
        if flags:
            places = json.loads(done.stdout)["findings"][0]["places"]
            assert places[0]["source"] == strange.replace("\udce9", r"\udce9")


def test_a_manifest_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = make_folder(tmp_path / "train", ["mama"])
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("precious")
    assert main(["check", str(train), "--write", str(manifest)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert manifest.read_text() == "precious"


def test_text_settings_reach_the_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(tmp_path / "train", ["Wa:ma ’a"] * 5)
    flags = ["--keep-characters", ":", "--keep-case", "--replace", "’=ʼ"]
    assert main(["check", str(folder), "--json", *flags]) == 0
    characters = {c["character"] for c in report_of(capsys)["characters"]}
    assert characters == {"W", "a", ":", "m", "ʼ"}


def test_a_malformed_replacement_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "train", ["mama"])
    assert main(["check", str(folder), "--replace", "ab"]) == 2
    assert "OLD=NEW" in capsys.readouterr().err


def test_all_shows_every_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(tmp_path / "train", [f"room {i}" for i in range(9)])
    main(["check", str(folder)])
    assert "and 4 more (--all shows them)" in capsys.readouterr().out
    main(["check", str(folder), "--all"])
    assert "train8" in capsys.readouterr().out
