import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference.transcribe_files import _distinct_names, find_recordings, transcribe_files
from tests.tone_model import ToneModel, synthesize, write


def names(recordings):
    return [recording.name.as_posix() for recording in recordings]


@pytest.fixture
def folder(tmp_path):
    """A folder with recordings in it, a bad one among them."""
    made = tmp_path / "in"
    (made / "deep").mkdir(parents=True)
    write(made / "a.wav", synthesize("abc"))
    write(made / "deep" / "b.FLAC", synthesize("de fg"))
    (made / "bad.mp3").write_bytes(b"this is not audio" * 50)
    (made / "notes.txt").write_text("notes")
    (made / "._a.wav").write_bytes(b"resource fork")
    return made


def test_folders_are_searched_for_audio_and_keep_their_structure(folder):
    assert names(find_recordings([folder])) == ["a", "bad", "deep/b"]


def test_a_file_named_twice_is_transcribed_once(folder):
    assert names(find_recordings([folder / "a.wav", folder, folder / "a.wav"])) == [
        *("a", "bad", "deep/b"),
    ]


def test_what_is_not_there_is_a_problem_of_its_own(tmp_path):
    (tmp_path / "empty").mkdir()
    missing, empty = find_recordings([tmp_path / "none.wav", tmp_path / "empty"])
    assert "no such file" in missing.problem
    assert "no audio file" in empty.problem


def test_inputs_of_one_stem_have_outputs_of_their_own(tmp_path):
    for name in ("a/x.wav", "a/x.mp3", "b/x.wav", "b/y.2024.wav", "c/X.WAV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert names(find_recordings(files)) == [
        *("x.mp3", "a-x.wav", "b-x.wav", "y.2024", "c-X.WAV"),
    ]


@given(st.lists(st.text("aA.", min_size=1, max_size=3), max_size=12))
def test_no_two_outputs_are_ever_one_file(tmp_path_factory, stems):
    root = tmp_path_factory.getbasetemp()
    files = [
        (root / str(i % 2) / f"{stem}x.wav", root.relative_to(root) / f"{stem}x.wav")
        for i, stem in enumerate(stems)
    ]
    made = [str(name).casefold() for name in _distinct_names(files)]
    assert len(set(made)) == len(made)


def test_a_bad_file_does_not_stop_the_others(folder, tmp_path):
    outcomes = list(transcribe_files(ToneModel(), [folder], output_dir=tmp_path / "out"))
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"]
    assert outcomes[1].path == folder / "bad.mp3"
    assert outcomes[1].message and "bad.mp3" not in outcomes[1].message
    assert (tmp_path / "out" / "a.txt").read_text() == "abc\n"
    assert (tmp_path / "out" / "deep" / "b.txt").read_text() == "de fg\n"
    assert not (tmp_path / "out" / "bad.txt").exists()


def test_a_second_run_does_only_what_is_missing(folder, tmp_path):
    out = tmp_path / "out"
    list(transcribe_files(ToneModel(), [folder], output_dir=out))
    (out / "a.txt").write_text("corrected by hand\n")
    (out / "deep" / "b.txt").unlink()
    outcomes = list(transcribe_files(ToneModel(), [folder], output_dir=out))
    assert [outcome.status for outcome in outcomes] == ["skipped", "failed", "done"]
    assert "--overwrite" in outcomes[0].message
    assert (out / "a.txt").read_text() == "corrected by hand\n"
    list(transcribe_files(ToneModel(), [folder], output_dir=out, overwrite=True))
    assert (out / "a.txt").read_text() == "abc\n"


def test_a_format_that_is_there_is_left_alone_and_said(folder, tmp_path):
    (tmp_path / "a.txt").write_text("corrected by hand\n")
    (outcome,) = transcribe_files(
        ToneModel(), [folder / "a.wav"], output_dir=tmp_path, formats=("txt", "srt")
    )
    assert outcome.written == (tmp_path / "a.srt",)
    assert str(tmp_path / "a.txt") in outcome.message
    assert (tmp_path / "a.txt").read_text() == "corrected by hand\n"


def test_an_impossible_wish_is_refused_before_the_first_file(folder):
    with pytest.raises(ModelError):
        next(transcribe_files(ToneModel(), [folder], language="fra"))


def test_an_output_folder_that_is_a_file_is_refused_before_the_first_file(folder, tmp_path):
    (tmp_path / "out").write_text("mine")
    model = ToneModel()
    with pytest.raises(ConfigError, match="transcripts cannot be written there"):
        next(transcribe_files(model, [folder], output_dir=tmp_path / "out"))
    assert model.window_lengths == []
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_a_folder_is_a_failure_and_told_before_the_work(
    folder, tmp_path, overwrite
):
    (tmp_path / "out" / "a.txt").mkdir(parents=True)
    model = ToneModel()
    outcomes = transcribe_files(
        model,
        [folder / "a.wav", folder / "deep"],
        output_dir=tmp_path / "out",
        overwrite=overwrite,
    )
    first, second = outcomes
    assert (first.status, second.status) == ("failed", "done")
    assert "folder" in first.message and "a.txt" in first.message
    assert model.window_lengths == [len(synthesize("de fg"))]


def test_long_subtitles_are_divided_although_words_were_not_asked_for(tmp_path):
    said = " ".join(["abc"] * 25)
    path = write(tmp_path / "a.wav", np.pad(synthesize(said), (0, 8000)))
    (outcome,) = transcribe_files(ToneModel(), [path], output_dir=tmp_path, formats=("srt", "json"))
    assert len(outcome.result["segments"]) == 1
    assert (tmp_path / "a.srt").read_text().count("-->") == 2
    assert '"words"' not in (tmp_path / "a.json").read_text()


def test_what_is_heard_before_the_damage_is_written(tmp_path):
    path = write(tmp_path / "story.flac", synthesize("ab" + "_" * 800 + "cd" + "_" * 800))
    path.write_bytes(path.read_bytes()[:-3000])
    (outcome,) = transcribe_files(ToneModel(), [path], output_dir=tmp_path / "out", formats=["txt"])
    assert outcome.status == "failed" and outcome.result is None
    assert "is damaged" in outcome.message and "What comes before is in" in outcome.message
    assert outcome.written == (tmp_path / "out" / "story.txt",)
    assert (tmp_path / "out" / "story.txt").read_text().split() == ["ab"]
