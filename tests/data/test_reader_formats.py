"""Reading corpora: every format on a small fixture written by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path, PurePath

import pytest

from speechjepa.audio.files import read_audio
from speechjepa.data.readers import read_corpus, write_manifest
from speechjepa.data.utterance import Utterance
from tests.data.corpora import audio, kaldi, lines, refused, rows

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


def test_a_data_folder_may_itself_be_a_link(tmp_path) -> None:
    audio(tmp_path / "disk/x.wav")
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    assert read_corpus(tmp_path / "data")[0].audio_path == tmp_path / "data/x.wav"


def test_a_name_that_is_not_utf8_gives_an_id_that_can_be_written(tmp_path) -> None:
    path = audio(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    listed = write_manifest(read_corpus(tmp_path), tmp_path / "manifest.jsonl")
    nemo = lines(tmp_path / "nemo.jsonl", r'{"audio_filepath": "caf\udce9.wav"}')
    for location in (tmp_path, listed, nemo):
        (utterance,) = read_corpus(location, format="folder" if location == tmp_path else "auto")
        assert (utterance.id, utterance.audio_path) == (r"caf\udce9", path)
        assert utterance.id.encode("utf-8") and utterance.source.encode("utf-8")


@pytest.mark.parametrize(("on_disk", "typed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_of_file_names_may_be_composed_or_not(tmp_path, on_disk, typed) -> None:
    audio(tmp_path / f"{unicodedata.normalize(on_disk, 'é/Ngô')}.wav")
    name = unicodedata.normalize(typed, "é/Ngô")
    relative = rows(tmp_path / "list.jsonl", {"audio_filepath": f"{name}.wav"})
    assert read_corpus(relative)[0].audio_path.is_file()
    absolute = rows(tmp_path / "far/list.jsonl", {"audio_filepath": f"{tmp_path}/{name}.wav"})
    assert read_corpus(absolute)[0].audio_path.is_file()
    (tmp_path / unicodedata.normalize(on_disk, "é") / f"{PurePath(name).name}.TXT").write_text("x")
    assert [u.text for u in read_corpus(tmp_path, format="folder")] == ["x"]


def test_a_list_that_is_not_read_is_mentioned(tmp_path, caplog) -> None:
    for name in ("a.wav", "more/b.wav"):
        audio(tmp_path / name)
    lines(tmp_path / "transcripts.csv", "file,text", "a.wav,mama")
    for name in ("metadata.parquet", "more/list.tsv", "more/words.json", "a.json", ".x/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "data.json").mkdir()
    assert read_corpus(tmp_path)[0].text is None
    told = "not read: metadata.parquet, more/list.tsv, more/words.json, 1 more."
    assert told in caplog.text


def test_two_files_of_one_name_keep_their_suffix(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    audio(tmp_path / "a.mp3")
    assert [u.id for u in read_corpus(tmp_path)] == ["a.mp3", "a.wav"]


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
    lines(tmp_path / "dev/metadata.csv", "file_name;text", "b.wav;zwei, drei")
    assert read_corpus(tmp_path / "dev")[0].text == "zwei, drei"
    assert read_corpus("train", data_root=tmp_path) == [train]
    assert read_corpus(tmp_path / "train/metadata.jsonl") == [train]
    assert read_corpus(tmp_path, split="train") == [train]


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
    refused(path, "train.json:1: has neither audio_filepath.*its keys are wav")
    refused(path, "`columns: {audio: KEY}`. .*check .* --format nemo --column audio=KEY --write")
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
    # A column with a usual name is no second transcript, and one with the name of a key is renamed.
    odd = Utterance(id="x", audio_path=inside, text="y", extra={"sentence": "z", "offset": 9})
    read = read_corpus(write_manifest([odd], tmp_path / "odd.jsonl"))[0]
    assert (read.text, read.start) == ("y", 0.0)
    assert read.extra == {"sentence": "z", "original_offset": 9}
    # The folder can be moved, as long as the audio lies below it.
    (tmp_path / "data").rename(tmp_path / "moved")
    assert read_corpus(tmp_path / "moved")[0].audio_path == tmp_path / "moved/é a.wav"


# Kaldi ----------------------------------------------------------------------------------------


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
    # A quotation over two rows is two rows; a quoted cell of two lines is one.
    lines(path, "path\ttext", 'a.wav\t"said he', 'b.wav\tshe said"')
    assert [u.text for u in read_corpus(path)] == ['"said he', 'she said"']
    lines(path, "path\ttext", 'a.wav\t"two', 'lines"', "b.wav\tx")
    assert [u.text for u in read_corpus(path)] == ["two\nlines", "x"]


# The rest -------------------------------------------------------------------------------------


def test_reading_local_corpora_imports_no_datasets_and_no_torch(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    code = (
        "import sys; from speechjepa.data.readers import read_corpus;"
        f"read_corpus({str(tmp_path)!r});"
        "assert not {'datasets', 'torch', 'av'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# Stretches and lists ------------------------------------------------------------------------------


def test_a_stretch_may_be_given_by_its_end(tmp_path) -> None:
    audio(tmp_path / "a.wav", 9.0)
    path = lines(tmp_path / "l.csv", "file,start,end,text", "a.wav,1.5,4,one", "a.wav,4,4.5,two")
    path = tmp_path / "l.csv"
    read = [(1.5, 2.5, "one"), (4.0, 0.5, "two")]
    assert [(u.start, u.duration, u.text) for u in read_corpus(path)] == read
    lines(path, "file,start,end,duration,text", "a.wav,1.5,00:04,1,one")
    assert [u.duration for u in read_corpus(path)] == [1.0]
    lines(path, "file,start,end,text", "a.wav,0,4,one", "a.wav,4,4,two")
    refused(path, 'l.csv:3: "end" is 4 s, not after "start", 4 s')
    # Other names may mean the time in a source that the file was cut from: they have to be said.
    lines(path, "file,begin,stop,text", "a.wav,1.5,4,one", "a.wav,4,4.5,two")
    said = read_corpus(path, columns={"start": "begin", "end": "stop"})
    assert [(u.start, u.duration, u.text) for u in said] == read
    lines(path, "file,end,text", "a.wav,2,one")
    assert [(u.start, u.duration) for u in read_corpus(path)] == [(0.0, None)]


def test_recordings_that_a_list_does_not_name_are_said(tmp_path, caplog) -> None:
    for name in ("a.wav", "b.wav", "more/c.wav", "t/a.wav"):
        audio(tmp_path / name)
    rows(tmp_path / "metadata.jsonl", {"file_name": "a.wav", "target_audio": {"yy": "t/a.wav"}})
    assert len(read_corpus(tmp_path)) == 1
    assert "2 recordings not in metadata.jsonl, and not read" in caplog.text
    caplog.clear()
    (tmp_path / "b.wav").unlink()
    (tmp_path / "more/c.wav").unlink()
    read_corpus(tmp_path)
    assert caplog.text == ""


def test_a_split_of_an_audiofolder_misses_no_other_split(tmp_path, caplog) -> None:
    for split in ("train", "test"):
        audio(tmp_path / split / f"{split}.wav")
        rows(tmp_path / split / "metadata.jsonl", {"file_name": f"{split}.wav", "text": "x"})
    assert len(read_corpus(tmp_path, split="test")) == 1
    assert caplog.text == ""
