"""Reading corpora: every format on a small fixture, and what is wrong is named with its line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from speechjepa.audio.files import read_audio, write_wav
from speechjepa.data.readers import read_corpus, write_manifest
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError


def audio(path: Path, seconds: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, np.full(round(16000 * seconds), 0.1, np.float32))
    return path


def lines(path: Path, *content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in content), encoding="utf-8")
    return path


def rows(path: Path, *content: dict[str, object]) -> Path:
    return lines(path, *(json.dumps(row, ensure_ascii=False) for row in content))


def refused(location: object, reason: str, **options: object) -> None:
    with pytest.raises(DataError, match=reason):
        read_corpus(location, **options)  # type: ignore[arg-type]


# A plain folder -------------------------------------------------------------------------------


def test_a_folder_gives_its_audio_with_the_text_beside_it(tmp_path) -> None:
    audio(tmp_path / "train/b.wav")
    audio(tmp_path / "train/anna/a.WAV")
    audio(tmp_path / "dev/c.flac.wav")
    audio(tmp_path / "train/._b.wav")
    lines(tmp_path / "train/b.txt", "\ufefftwo", " lines ")
    lines(tmp_path / "dev/c.flac.txt", "  ")
    utterances = read_corpus(tmp_path)
    assert [u.id for u in utterances] == ["dev/c.flac", "train/anna/a", "train/b"]
    assert [u.text for u in utterances] == [None, None, "two lines"]
    assert [u.split for u in utterances] == ["dev", "train", "train"]
    assert utterances[2].audio_path == tmp_path / "train/b.wav"
    assert [u.id for u in read_corpus(tmp_path, split="dev")] == ["dev/c.flac"]
    refused(tmp_path, 'no split "test"; it has dev, train', split="test")


def test_names_may_hold_anything(tmp_path) -> None:
    names = ["with space", 'say "hi"', "emoji 🎵", "new\nline", "it's", "ყ|%20"]
    for name in names:
        audio(tmp_path / f"{name}.wav")
        lines(tmp_path / f"{name}.txt", name.replace("\n", " "))
    utterances = read_corpus(tmp_path)
    assert {u.id for u in utterances} == set(names)
    write_manifest(utterances, tmp_path / "manifest.jsonl")
    again = read_corpus(tmp_path / "manifest.jsonl")
    assert {u.id: (u.text, u.audio_path) for u in again} == {
        u.id: (u.text, u.audio_path) for u in utterances
    }
    assert all(len(read_audio(u.audio_path)) == 1600 for u in again)


def test_a_loop_of_links_ends(tmp_path) -> None:
    audio(tmp_path / "a/x.wav")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to(tmp_path / "a/self")
    assert [u.id for u in read_corpus(tmp_path)] == ["a/x"]


def test_a_link_out_of_the_folder_is_refused(tmp_path) -> None:
    outside = audio(tmp_path / "outside/x.wav")
    audio(tmp_path / "data/y.wav")
    (tmp_path / "data/x.wav").symlink_to(outside)
    refused(tmp_path / "data", '"x.wav" leaves the data folder.*through a link')
    (tmp_path / "data/x.wav").unlink()
    (tmp_path / "data/more").symlink_to(tmp_path / "outside")
    refused(tmp_path / "data", '"more" leaves the data folder.*through a link')


def test_a_data_folder_may_itself_be_a_link(tmp_path) -> None:
    audio(tmp_path / "disk/x.wav")
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    assert read_corpus(tmp_path / "data")[0].audio_path == tmp_path / "data/x.wav"


def test_two_files_of_one_name_keep_their_suffix(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    audio(tmp_path / "a.mp3")
    assert [u.id for u in read_corpus(tmp_path)] == ["a.mp3", "a.wav"]


def test_a_folder_without_audio_is_refused(tmp_path) -> None:
    lines(tmp_path / "notes.txt", "no sound here")
    refused(tmp_path, "holds no corpus")
    refused(tmp_path, "holds no utterances", format="folder")
    refused(tmp_path / "gone", "does not exist")


def test_a_transcript_that_is_not_utf8_is_refused_with_its_line(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_bytes(b"one\ntwo caf\xe9\n")
    refused(tmp_path, r"a.txt:2: is not UTF-8 text \(byte 0xe9\)")
    (tmp_path / "a.txt").write_bytes("one".encode("utf-16"))
    refused(tmp_path, "a.txt:1: is UTF-16")


# AudioFolder ----------------------------------------------------------------------------------


def test_an_audiofolder_of_splits_is_read(tmp_path) -> None:
    audio(tmp_path / "train/audio/a.wav")
    audio(tmp_path / "dev/b.wav")
    row = {"file_name": "audio/a.wav", "duration": 0.1, "id": "A", "speaker": 7, "lang": "mdw"}
    rows(tmp_path / "train/metadata.jsonl", {**row, "text": "wá", "translation": {"fr": "x"}})
    (tmp_path / "dev/metadata.csv").write_text(
        '\ufefffile_name,transcription,note\nb.wav,"two, with\nnewline",\n', encoding="utf-8"
    )
    dev, train = read_corpus(tmp_path)
    assert train == Utterance(
        id="A",
        audio_path=tmp_path / "train/audio/a.wav",
        duration=0.1,
        text="wá",
        speaker="7",
        language="mdw",
        split="train",
        extra={"translation": {"fr": "x"}},
        source=f"{tmp_path}/train/metadata.jsonl:1",
    )
    assert (dev.id, dev.text, dev.split, dev.extra) == ("b", "two, with\nnewline", "dev", {})
    assert read_corpus("train", data_root=tmp_path) == [train]
    assert read_corpus(tmp_path / "train/metadata.jsonl") == [train]
    assert read_corpus(tmp_path, split="train") == [train]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ('{"file_name": "a.wav"', "metadata.jsonl:2: is not valid JSON"),
        ('["a.wav"]', "metadata.jsonl:2: must be a JSON object"),
        ('{"text": "x"}', "metadata.jsonl:2: the audio path must be a file name"),
        ('{"file_name": "../x.wav"}', 'metadata.jsonl:2: "../x.wav" leaves the data folder'),
        ('{"file_name": "/etc/x.wav"}', 'metadata.jsonl:2: "/etc/x.wav" leaves the data folder'),
        ('{"file_name": "link.wav"}', 'metadata.jsonl:2: "link.wav" leaves .*through a link'),
        ('{"file_name": "https://x.org/a.wav"}', "metadata.jsonl:2: .* is an address"),
        ('{"file_name": "b.wav", "id": "a"}', r'metadata.jsonl:2: the id "a" is taken by .*:1'),
        ('{"file_name": "b.wav", "duration": -1}', 'metadata.jsonl:2: "duration" must be a number'),
        ('{"file_name": "b.wav", "duration": NaN}', 'metadata.jsonl:2: "duration" must be'),
        ('{"file_name": "b.wav", "duration": true}', 'metadata.jsonl:2: "duration" must be'),
        ('{"file_name": "b.wav", "text": 5}', 'metadata.jsonl:2: "text" must be text, but is 5'),
        ('{"file_name": "b\\u0000.wav"}', "metadata.jsonl:2: the audio path must be"),
    ],
)
def test_a_wrong_row_is_refused_with_file_and_line(tmp_path, second, reason) -> None:
    outside = audio(tmp_path / "x.wav")
    audio(tmp_path / "data/a.wav")
    (tmp_path / "data/link.wav").symlink_to(outside)
    lines(tmp_path / "data/metadata.jsonl", '{"file_name": "a.wav"}', second)
    refused(tmp_path / "data", reason)


def test_lines_that_are_not_utf8_are_refused_with_their_number(tmp_path) -> None:
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "a.wav"}\n{"file_name": "\xff"}\n')
    refused(tmp_path, "metadata.jsonl:2: is not UTF-8")


def test_an_unusual_line_end_inside_a_transcript_is_kept(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    rows(tmp_path / "metadata.jsonl", {"file_name": "a.wav", "text": "one\u2028two"})
    assert read_corpus(tmp_path)[0].text == "one\u2028two"


def test_columns_are_chosen_by_name(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    rows(tmp_path / "metadata.jsonl", {"file_name": "a.wav", "text": "x", "sentence": "y"})
    refused(tmp_path, "metadata.jsonl:1: the transcript may be in any of the columns text, sent")
    chosen = read_corpus(tmp_path, columns={"text": "sentence"})[0]
    assert (chosen.text, chosen.extra) == ("y", {"text": "x"})
    refused(tmp_path, 'no column "sentense".*mean "sentence"', columns={"text": "sentense"})
    refused(tmp_path, '`columns` names "txt"', columns={"txt": "sentence"})


def test_empty_and_doubled_metadata_are_refused(tmp_path) -> None:
    lines(tmp_path / "metadata.csv")
    refused(tmp_path, "metadata.csv:1: holds no rows")
    rows(tmp_path / "metadata.jsonl", {"file_name": "a.wav"})
    refused(tmp_path, "metadata.jsonl: stands beside metadata.csv")


def test_a_missing_file_is_left_to_later_but_not_if_all_are(tmp_path) -> None:
    rows(tmp_path / "metadata.jsonl", {"file_name": "a.wav"}, {"file_name": "b.wav"})
    refused(tmp_path, "none of its 2 audio files exists.*data root", data_root="/somewhere")
    audio(tmp_path / "a.wav")
    assert len(read_corpus(tmp_path)) == 2


def test_audio_may_lie_below_the_data_root_instead(tmp_path) -> None:
    audio(tmp_path / "clips/a.wav")
    row = {"file_name": "../clips/a.wav"}
    rows(tmp_path / "lists/metadata.jsonl", row, {"file_name": "clips/a.wav", "id": "2"})
    refused(tmp_path / "lists", "leaves the data folder")
    found = read_corpus("lists", data_root=tmp_path)
    assert {u.audio_path for u in found} == {tmp_path / "clips/a.wav"}


# NeMo and our own manifest --------------------------------------------------------------------


def test_a_nemo_manifest_is_read(tmp_path) -> None:
    far = audio(tmp_path / "far/c.wav")
    audio(tmp_path / "here/a.wav", 3.0)
    path = rows(
        tmp_path / "here/train.json",
        {"audio_filepath": "a.wav", "duration": 1.5, "text": "x", "offset": 0, "lang": "sw"},
        {"audio_filepath": "a.wav", "duration": 1, "text": "", "offset": 1.5},
        {"audio_filepath": str(far), "duration": 0.1, "pnc": "no"},
    )
    utterances = read_corpus(path)
    assert [u.id for u in utterances] == ["a-0.000", "a-1.500", "c"]
    assert [(u.start, u.duration, u.text, u.language) for u in utterances] == [
        (0.0, 1.5, "x", "sw"),
        (1.5, 1.0, None, None),
        (0.0, 0.1, None, None),
    ]
    assert utterances[2].audio_path == far
    assert utterances[2].extra == {"pnc": "no"}
    assert {u.split for u in utterances} == {"train"}
    rows(path, {"audio_filepath": "../far/c.wav"})
    refused(path, 'train.json:1: "../far/c.wav" leaves the data folder')
    rows(path, {"audio_filepath": "a.wav"}, {"text": "x"})
    refused(path, 'train.json:2: lacks "audio_filepath"; its keys are text')
    rows(path, {"wav": "a.wav"})
    refused(path, "train.json:1: has neither audio_filepath")
    assert read_corpus(path, format="nemo", columns={"audio": "wav"})[0].id == "a"


def test_a_manifest_gives_back_what_was_written(tmp_path) -> None:
    inside, outside = audio(tmp_path / "data/é a.wav"), audio(tmp_path / "b.wav")
    written = [
        Utterance(
            id="one",
            audio_path=inside,
            start=0.1234567,
            duration=0.05,
            text='tab\t "quote"\nline',
            speaker="s",
            language="mdw",
            split="train",
            extra={"translation": {"fr": "é"}, "score": 1.5, "none": None},
        ),
        Utterance(id="two", audio_path=outside),
    ]
    path = write_manifest(written, tmp_path / "data/manifest.jsonl")
    assert "é a.wav" in path.read_text("utf-8") and str(inside) not in path.read_text("utf-8")
    for location in (path, path.parent):
        read = read_corpus(location)
        assert [u.source for u in read] == [f"{path}:1", f"{path}:2"]
        assert [Utterance(**{**vars(u), "source": ""}) for u in read] == written
    # The folder can be moved, as long as the audio lies below it.
    (tmp_path / "data").rename(tmp_path / "moved")
    assert read_corpus(tmp_path / "moved")[0].audio_path == tmp_path / "moved/é a.wav"


def test_a_manifest_never_replaces_a_file_silently(tmp_path) -> None:
    utterances = [Utterance(id="a", audio_path=audio(tmp_path / "a.wav"))]
    path = lines(tmp_path / "manifest.jsonl", "mine")
    with pytest.raises(DataError, match="already exists"):
        write_manifest(utterances, path)
    assert path.read_text() == "mine\n"
    write_manifest(utterances, path, overwrite=True)
    assert len(read_corpus(path)) == 1
    with pytest.raises(DataError, match="no utterances to write"):
        write_manifest([], tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match='"offset" has the name of a manifest key'):
        write_manifest(
            [Utterance(id="a", audio_path=path, extra={"offset": 1})], tmp_path / "x.jsonl"
        )
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "manifest.jsonl"]


# Kaldi ----------------------------------------------------------------------------------------


def kaldi(folder: Path) -> Path:
    wav = audio(folder / "wav/rec one.wav", 3.0)
    lines(folder / "wav.scp", f"rec1 {wav}", "rec2 wav/rec one.wav")
    lines(folder / "segments", "a-1 rec1 0.0 1.25", "a-2 rec1 1.25 -1", "b-1 rec2 0.5 2")
    lines(folder / "text", "a-1 first words", "b-1", "a-2 more")
    lines(folder / "utt2spk", "a-1 anna", "a-2 anna", "b-1 ben")
    return folder


def test_a_kaldi_directory_is_read(tmp_path) -> None:
    folder = kaldi(tmp_path / "train")
    utterances = read_corpus(folder)
    assert [(u.id, u.start, u.duration, u.text, u.speaker) for u in utterances] == [
        ("a-1", 0.0, 1.25, "first words", "anna"),
        ("a-2", 1.25, None, "more", "anna"),
        ("b-1", 0.5, 1.5, None, "ben"),
    ]
    assert {u.audio_path for u in utterances} == {folder / "wav/rec one.wav"}
    assert {u.split for u in utterances} == {"train"}
    assert utterances[1].source == f"{folder}/segments:2"
    assert read_corpus(folder / "wav.scp") == utterances


def test_a_kaldi_directory_without_segments_is_read(tmp_path) -> None:
    folder = kaldi(tmp_path / "data")
    (folder / "segments").unlink()
    lines(folder / "text", "rec1 words")
    lines(folder / "utt2spk", "rec1 anna")
    lines(folder / "utt2dur", "rec1 3.0")
    first, second = read_corpus(folder)
    assert (first.id, first.text, first.duration) == ("rec1", "words", 3.0)
    assert (second.id, second.text, second.duration) == ("rec2", None, None)


def test_a_command_in_wav_scp_is_refused_and_never_run(tmp_path) -> None:
    folder = kaldi(tmp_path / "data")
    trace = tmp_path / "trace"
    lines(folder / "wav.scp", "rec2 wav/rec one.wav", f"rec1 touch {trace}; cat x.wav |")
    refused(folder, "wav.scp:2: is a command, and commands are never run")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("wav.scp", ["rec1 wav/rec one.wav", "rec1 x.wav"], 'wav.scp:2: "rec1" is also on line 1'),
        ("wav.scp", ["rec1 ../x.wav"], 'wav.scp:1: "../x.wav" leaves the data folder'),
        ("wav.scp", ["rec1 data.ark:123"], "wav.scp:1: points into a Kaldi archive"),
        ("wav.scp", ["rec1"], "wav.scp:1: the audio path must be a file name"),
        ("segments", ["a-1 rec9 0 1"], 'segments:1: the recording "rec9" is not in wav.scp'),
        ("segments", ["a-1 rec1 0 1", "a-2 rec1 2 1"], "segments:2: the segment must end after"),
        ("segments", ["a-1 rec1 0 x"], "segments:1: a time must be a number"),
        ("segments", ["a-1 rec1 0"], "segments:1: must be `utterance recording start end`"),
        ("text", ["a-1 x", "z words"], 'text:2: the utterance "z" is neither'),
        ("utt2spk", ["z anna"], 'utt2spk:1: the utterance "z" is neither'),
    ],
)
def test_a_wrong_kaldi_line_is_refused(tmp_path, name, content, reason) -> None:
    folder = kaldi(tmp_path / "data")
    lines(folder / name, *content)
    refused(folder, reason)


# fairseq --------------------------------------------------------------------------------------


def test_fairseq_files_are_read(tmp_path) -> None:
    root = tmp_path / "audio"
    audio(root / "x/a.wav"), audio(root / "x/b.wav")
    lists = tmp_path / "lists"
    lines(lists / "train.tsv", str(root), "x/a.wav\t1600", "x/b.wav\t1600")
    lines(lists / "train.ltr", "H E L L O | Y O U |", "B Y E |")
    lines(lists / "dev.tsv", str(root), "x/b.wav\t1600")
    lines(lists / "dev.wrd", "it's me")
    utterances = read_corpus(lists)
    assert [(u.id, u.split, u.text) for u in utterances] == [
        ("dev/x/b", "dev", "it's me"),
        ("train/x/a", "train", "HELLO YOU"),
        ("train/x/b", "train", "BYE"),
    ]
    assert utterances[1].extra == {"num_samples": 1600}
    assert [u.id for u in read_corpus(lists / "dev.tsv")] == ["x/b"]
    assert len(read_corpus(lists, split="train")) == 2


def test_the_data_root_stands_for_a_fairseq_root_of_another_machine(tmp_path) -> None:
    audio(tmp_path / "here/a.wav")
    path = lines(tmp_path / "train.tsv", "/another/machine", "a.wav\t1600")
    refused(path, "none of its 1 audio files exists.*/another/machine")
    assert read_corpus(path, data_root=tmp_path / "here")[0].audio_path == tmp_path / "here/a.wav"


def test_wrong_fairseq_files_are_refused(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    path = lines(tmp_path / "train.tsv", str(tmp_path), "a.wav\t1600", "b.wav 1600")
    refused(path, "train.tsv:3: must be `path<TAB>number of samples`")
    lines(path, str(tmp_path), "a.wav\t1600", "../b.wav\t1600")
    refused(path, 'train.tsv:3: "../b.wav" leaves the data folder')
    lines(path, str(tmp_path), "a.wav\t1600")
    lines(tmp_path / "train.wrd", "one", "two")
    refused(path, "train.wrd:2: has 2 lines, but train.tsv names 1 files")


# Common Voice ---------------------------------------------------------------------------------

CV_HEADER = "client_id\tpath\tsentence\tup_votes\tlocale"


def test_common_voice_is_read(tmp_path) -> None:
    for name in ("a.mp3", "b.mp3", "c.mp3"):
        audio(tmp_path / "clips" / name)
    first = 'anna\ta.mp3\t"Quoted" she said\t2\tsw'
    lines(tmp_path / "train.tsv", CV_HEADER, first, "ben\tb\tPlain\t\tsw")
    lines(tmp_path / "dev.tsv", CV_HEADER, 'cara\tc.mp3\t"\t0\tsw')
    lines(tmp_path / "validated.tsv", CV_HEADER, first)
    lines(tmp_path / "clip_durations.tsv", "clip\tduration[ms]", "a.mp3\t1500")
    utterances = read_corpus(tmp_path)
    assert [(u.id, u.split, u.text, u.speaker, u.duration) for u in utterances] == [
        ("a", "train", '"Quoted" she said', "anna", 1.5),
        ("b", "train", "Plain", "ben", None),
        ("c", "dev", '"', "cara", None),
    ]
    assert utterances[0].audio_path == tmp_path / "clips/a.mp3"
    assert (utterances[0].language, utterances[0].extra) == ("sw", {"up_votes": "2"})
    assert [u.split for u in read_corpus(tmp_path, split="validated")] == ["validated"]
    refused(tmp_path, "has none of other.tsv; its splits are: clip_durations, dev", split="other")
    lines(tmp_path / "dev.tsv", CV_HEADER, "cara\tc.mp3\tx")
    refused(tmp_path / "dev.tsv", "dev.tsv:2: has 3 columns, but the header has 5")
    lines(tmp_path / "dev.tsv", CV_HEADER, "cara\t../../c.mp3\tx\t0\tsw")
    refused(tmp_path / "dev.tsv", "dev.tsv:2: .* leaves the data folder")


# Tables ---------------------------------------------------------------------------------------


def test_a_table_with_named_columns_is_read(tmp_path) -> None:
    audio(tmp_path / "my, file.wav")
    path = lines(tmp_path / "x.csv", "Ton,Wort,wer", '"my, file.wav","sagt ""ja""",Anna')
    refused(path, "x.csv:1: no column names the audio files; the columns are Ton, Wort, wer")
    columns = {"audio": "Ton", "text": "Wort", "speaker": "wer"}
    read = read_corpus(path, columns=columns)[0]
    assert (read.id, read.text, read.speaker) == ("my, file", 'sagt "ja"', "Anna")
    lines(path, "Ton;Wort;wer", "my, file.wav;ja;Anna")
    assert read_corpus(path, columns=columns)[0].text == "ja"
    lines(path, "Ton,Wort", "a,b,c")
    refused(path, "x.csv:2: has 3 columns, but the header has 2", columns={"audio": "Ton"})
    lines(path, "Ton,Ton", "a,b")
    refused(path, 'x.csv:1: has the column "Ton" twice', columns={"audio": "Ton"})
    lines(path, "audio", '"multi', 'line.wav"', '"open')
    refused(path, "x.csv:4: is malformed")
    lines(path)
    refused(path, "x.csv:1: is empty")


def test_a_tsv_is_read_with_and_without_quoting(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    path = lines(tmp_path / "x.tsv", "path\ttext", 'a.wav\t"said" he', 'b.wav\t"')
    assert [u.text for u in read_corpus(path)] == ['"said" he', '"']
    lines(path, "path\ttext", 'a.wav\t"a ""b"""')
    assert read_corpus(path)[0].text == 'a "b"'


# Hugging Face datasets ------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    import pyarrow

    monkeypatch.setenv("SPEECHJEPA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    contents = [audio(tmp_path / f"{n}.wav", n / 10).read_bytes() for n in (1, 2, 3)]
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "audio": datasets.Audio(decode=False),
            "transcription": datasets.Value("string"),
            "gender": datasets.ClassLabel(names=["male", "female"]),
        }
    )
    table = pyarrow.Table.from_pydict(
        {
            "id": [5, 5, 6],
            "audio": [{"bytes": c, "path": f"r{n}.wav"} for n, c in enumerate(contents)],
            "transcription": ["habari", "jambo", None],
            "gender": [0, 1, 1],
        },
        schema=features.arrow_schema,
    )
    return datasets.Dataset(table)


@pytest.mark.parametrize("form", ["disk", "parquet"])
def test_a_hugging_face_dataset_is_read_with_our_decoder(tmp_path, hub, form) -> None:
    import datasets

    folder = tmp_path / "saved"
    if form == "disk":
        datasets.DatasetDict({"train": hub, "test": hub.select([0])}).save_to_disk(str(folder))
    else:
        folder.mkdir()
        hub.to_parquet(str(folder / "train.parquet"))
        hub.select([0]).to_parquet(str(folder / "test.parquet"))
    utterances = read_corpus(f"hf:{folder}")
    assert [(u.id, u.split, u.text) for u in utterances] == [
        ("train/r0", "train", "habari"),
        ("train/r1", "train", "jambo"),
        ("train/r2", "train", None),
        ("test/r0", "test", "habari"),
    ]
    assert utterances[1].extra == {"id": 5, "gender": "female"}
    assert [len(read_audio(u.audio_path)) for u in utterances] == [1600, 3200, 4800, 1600]
    # Written once: the test row shares its file with the train row, a second reading writes none.
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.wav")}
    assert len(stored) == 3
    assert read_corpus(f"hf:{folder}::test")[0].id == "test/r0"
    assert [u.split for u in read_corpus(str(folder), format="hf", split="test")] == ["test"]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.wav")} == stored
    refused(f"hf:{folder}::other", 'has no split "other"; it has train, test')


def test_an_audiofolder_read_through_datasets_needs_no_torchcodec(tmp_path, hub) -> None:
    audio(tmp_path / "af/train/a.wav")
    rows(tmp_path / "af/train/metadata.jsonl", {"file_name": "a.wav", "text": "x"})
    utterance = read_corpus(f"hf:{tmp_path}/af")[0]
    assert (utterance.id, utterance.text) == ("train/a", "x")
    assert len(read_audio(utterance.audio_path)) == 1600


def test_a_script_dataset_is_read_from_its_parquet_copy(tmp_path, hub, monkeypatch) -> None:
    import datasets

    hub.to_parquet(str(tmp_path / "train.parquet"))
    local = datasets.load_dataset(str(tmp_path), streaming=True)
    asked = []

    def load(name: str, config: str | None = None, **options: object) -> object:
        asked.append((name, config, options.get("data_dir"), options.get("revision")))
        if "revision" not in options:
            raise RuntimeError("Dataset scripts are no longer supported, but found fleurs.py")
        return local

    monkeypatch.setattr(datasets, "load_dataset", load)
    first = read_corpus("hf:google/fleurs:sw_ke:train")
    assert len(first) == 3
    assert asked[1] == ("google/fleurs", None, "sw_ke", "refs/convert/parquet")
    # What was fetched from the Hub is not fetched again.
    assert read_corpus("hf:google/fleurs:sw_ke:train") == first
    assert len(asked) == 2


def test_a_dataset_name_that_means_nothing_is_refused(tmp_path) -> None:
    refused("hf:", "must be hf:NAME")
    refused("hf:a/b:c:d:e", "must be hf:NAME")
    refused(f"hf:{tmp_path}/gone", "gone: does not exist")


# The rest -------------------------------------------------------------------------------------


def test_an_unknown_format_is_refused(tmp_path) -> None:
    refused(
        tmp_path, 'the format "lhotse" is not known; it is one of auto, folder', format="lhotse"
    )
    path = lines(tmp_path / "x.xlsx", "words")
    refused(path, "is no manifest that can be told by its name")


def test_reading_local_corpora_imports_no_datasets_and_no_torch(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    code = (
        "import sys; from speechjepa.data.readers import read_corpus;"
        f"read_corpus({str(tmp_path)!r});"
        "assert not {'datasets', 'torch', 'av'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
