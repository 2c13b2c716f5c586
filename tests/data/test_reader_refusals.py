"""What is wrong with a corpus is named with its file and line, and nothing is lost or run."""

from __future__ import annotations

import os

import pytest

from speechjepa.data.readers import read_corpus, write_manifest
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError
from tests.data.corpora import audio, kaldi, lines, refused, rows

# A plain folder -------------------------------------------------------------------------------


def test_a_link_out_of_the_folder_is_refused(tmp_path) -> None:
    outside = audio(tmp_path / "outside/x.wav")
    audio(tmp_path / "data/y.wav")
    (tmp_path / "data/x.wav").symlink_to(outside)
    refused(tmp_path / "data", '"x.wav" leaves the data folder.*through a link')
    (tmp_path / "data/x.wav").unlink()
    (tmp_path / "data/more").symlink_to(tmp_path / "outside")
    refused(tmp_path / "data", '"more" leaves the data folder.*through a link')


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
        ('{"file_name": "b.wav", "duration": 1' + "0" * 400 + "}", '2: "duration" must be'),
        ('{"file_name": "b.wav", "duration": 1' + "0" * 5000 + "}", "jsonl:2: is not valid JSON"),
        ('{"file_name": "b\\ud800.wav"}', "metadata.jsonl:2: the audio path must be a file name"),
        ('{"file_name": "b.wav", "text": "x\\ud800"}', 'jsonl:2: "text" holds half a character'),
        ('{"file_name": "b.wav", "id": "x\\ud800"}', 'jsonl:2: "id" holds half a character'),
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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl"])
def test_utf16_is_refused_with_and_without_its_mark(tmp_path, name, encoding) -> None:
    audio(tmp_path / "a.wav")
    (tmp_path / name).write_bytes('audio,text\na.wav,"x"\n'.encode(encoding))
    refused(tmp_path / name, rf"{name}:1: .*UTF-16 text")


def test_a_nul_in_a_transcript_is_refused_with_its_line(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    lines(tmp_path / "list.csv", "audio,text", "a.wav,x", "b.wav,x\0x")
    refused(tmp_path / "list.csv", "list.csv:3: holds a NUL character")


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


# NeMo and our own manifest --------------------------------------------------------------------


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
    with pytest.raises(DataError, match='the id "a" is used twice: by  and by list:2'):
        write_manifest(
            [*utterances, Utterance(id="a", audio_path=path, source="list:2")], tmp_path / "x.jsonl"
        )
    with pytest.raises(DataError, match="a.wav/x.jsonl: cannot be written"):
        write_manifest(utterances, tmp_path / "a.wav/x.jsonl")
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "manifest.jsonl"]


# Kaldi ----------------------------------------------------------------------------------------


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


def test_wrong_fairseq_files_are_refused(tmp_path) -> None:
    audio(tmp_path / "a.wav")
    path = lines(tmp_path / "train.tsv", str(tmp_path), "a.wav\t1600", "b.wav 1600")
    refused(path, "train.tsv:3: must be `path<TAB>number of samples`")
    lines(path, str(tmp_path), "a.wav\t1600", "../b.wav\t1600")
    refused(path, 'train.tsv:3: "../b.wav" leaves the data folder')
    lines(path, str(tmp_path), "a.wav\t1600")
    lines(tmp_path / "train.wrd", "one", "two")
    refused(path, "train.wrd:2: has 2 lines, but train.tsv names 1 files")


# The rest -------------------------------------------------------------------------------------


def test_an_empty_place_is_refused_and_not_taken_for_the_current_folder(tmp_path) -> None:
    refused("", "the place of the data is empty")


def test_an_unknown_format_is_refused(tmp_path) -> None:
    refused(
        tmp_path, 'the format "lhotse" is not known; it is one of auto, folder', format="lhotse"
    )
    path = lines(tmp_path / "x.xlsx", "words")
    refused(path, "is no manifest that can be told by its name")


@pytest.mark.parametrize(
    "row",
    [
        '{"id": "c", "start": 0, "duration": 1, "supervisions": [], "recording": {}}',
        '{"id": "r", "sources": [{"type": "file", "source": "a.wav"}], "num_samples": 16000}',
        '{"id": "s", "recording_id": "r", "start": 0, "duration": 1, "text": "x"}',
    ],
)
def test_manifests_of_lhotse_are_told_how_to_become_a_kaldi_folder(row, tmp_path) -> None:
    refused(lines(tmp_path / "cuts.jsonl", row), "lhotse kaldi export")
