import argparse
import json
import os

import pytest

import speechjepa.inference.model
from speechjepa.cli import transcribe
from speechjepa.cli.main import main
from speechjepa.data.readers import read_corpus
from speechjepa.errors import ConfigError
from tests.tone_model import ToneModel, synthesize, write


@pytest.fixture
def run(monkeypatch):
    """Run the command with the model that hears tones."""
    monkeypatch.setattr(speechjepa.inference.model, "load", lambda path, **_: ToneModel())

    def run_with(*arguments):
        parser = argparse.ArgumentParser()
        transcribe.add_parser(parser.add_subparsers())
        args = parser.parse_args(["transcribe", "--model", "bundle", *map(str, arguments)])
        return transcribe.run(args)

    return run_with


@pytest.fixture
def recording(tmp_path):
    return write(tmp_path / "a.wav", synthesize("abc de"))


def test_without_an_output_folder_the_text_goes_to_stdout(run, recording, capsys):
    assert run(recording) == 0
    assert capsys.readouterr() == ("abc de\n", "")


def test_several_files_are_one_line_each(run, recording, tmp_path, capsys):
    other = write(tmp_path / "b.wav", synthesize("gh"))
    assert run(recording, other) == 0
    assert capsys.readouterr().out == f"{recording}\tabc de\n{other}\tgh\n"
    assert run(recording, other, "-f", "json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["path"], line["text"]) for line in lines] == [
        (str(recording), "abc de"),
        (str(other), "gh"),
    ]


def test_names_that_no_line_can_hold_stay_on_one(run, tmp_path, capsys):
    name = os.fsdecode(b"two\nlines \xe9.wav")
    recording = write(tmp_path / "x.wav", synthesize("abc de")).rename(tmp_path / name)
    write(tmp_path / "a.wav", synthesize("gh"))
    (tmp_path / "bad\n.wav").write_bytes(b"RIFF")
    assert run(tmp_path) == 1
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/a.wav\tgh\n{tmp_path}/two\\nlines \\udce9.wav\tabc de\n"
    assert f"error: {tmp_path}/bad\\n.wav: " in err
    assert run(tmp_path, "-f", "json") == 1
    paths = [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()]
    assert paths[1] == str(recording).replace("\udce9", "\\udce9")


def test_every_format_is_written(run, recording, tmp_path, capsys):
    assert run(recording, "-o", tmp_path / "out", "-f", "all", "--word_timestamps") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("a.TextGrid", "a.eaf", "a.json", "a.srt", "a.tsv", "a.txt", "a.vtt"),
    ]
    made = json.loads((tmp_path / "out" / "a.json").read_text())
    assert [word["word"] for word in made["segments"][0]["words"]] == ["abc", "de"]
    assert capsys.readouterr() == ("", f"1 transcript in {tmp_path}/out/\n")


def test_the_end_says_how_many_transcripts_are_where(run, recording, tmp_path, capsys):
    other = write(tmp_path / "b.wav", synthesize("gh"))
    out = f"{tmp_path}/out/"
    assert run(recording, other, "none.wav", "-o", out) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"2 transcripts in {out}",
        "files that could not be transcribed: 1",
    ]
    assert run(recording, other, "-o", out) == 0  # both are there already
    assert "transcripts in" not in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["txt", "eaf", "TextGrid", "srt"])
def test_transcripts_that_would_become_labels_are_told(run, recording, tmp_path, capsys, suffix):
    run(tmp_path, "-o", tmp_path / "out", "-f", suffix)
    assert "warning" not in capsys.readouterr().err
    run(tmp_path, "-o", tmp_path, "-f", suffix)
    told = "warning: transcripts lie beside their recordings (1): the next `check` or `run` of"
    labelled = [u for u in read_corpus(tmp_path) if u.text]
    assert (told in capsys.readouterr().err) == bool(labelled) == (suffix != "srt")


@pytest.mark.parametrize("suffix", ["txt", "eaf", "TextGrid"])
def test_transcripts_of_recordings_of_one_name_are_read_back(
    run, recording, tmp_path, capsys, suffix
):
    (tmp_path / "a.flac").write_bytes(recording.read_bytes())
    assert run(tmp_path, "-o", tmp_path, "-f", suffix) == 0
    assert (tmp_path / f"a.wav.{suffix}").is_file()
    assert "lie beside their recordings (2)" in capsys.readouterr().err
    labelled = {u.audio_path.name: u.text for u in read_corpus(tmp_path) if u.text}
    # Where both say the same they are copies, of which one is read; ELAN's also say of what.
    both = {"a.wav": "abc de", "a.flac": "abc de"}
    assert labelled == (both if suffix == "eaf" else {"a.flac": "abc de"})


def test_characters_are_timed_in_json(run, recording, capsys):
    assert run(recording, "-f", "json", "--character_timestamps") == 0
    (segment,) = json.loads(capsys.readouterr().out)["segments"]
    assert [one["character"] for one in segment["words"][1]["characters"]] == ["d", "e"]


def test_a_file_that_cannot_be_read_is_reported_and_the_others_go_on(run, recording, capsys):
    bad = recording.with_name("bad.wav")
    bad.write_bytes(b"RIFF")
    assert run(bad, recording, "none.wav") == 1
    out, err = capsys.readouterr()
    assert out == f"{recording}\tabc de\n"
    assert f"error: {bad}: " in err
    assert "error: none.wav: there is no such file" in err
    assert "could not be transcribed: 2" in err


def test_a_transcript_that_is_there_is_skipped_and_said(run, recording, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("mine")
    assert run(recording, "-o", tmp_path) == 0
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "a.txt").read_text() == "mine"
    assert run(recording, "-o", tmp_path, "--overwrite") == 0
    assert (tmp_path / "a.txt").read_text() == "abc de\n"


@pytest.mark.parametrize(
    "flags",
    [
        ("--output_dir", "OUT", "--output_format", "srt", "--batch_size", "2"),
        ("--output-dir", "OUT", "--output-format", "srt", "--batch-size", "2"),
        ("-o", "OUT", "-f", "srt", "--chunk_length_s", "10", "--overlap-seconds", "1"),
    ],
)
def test_flags_take_underscores_and_hyphens(run, recording, tmp_path, flags):
    flags = [tmp_path / "out" if flag == "OUT" else flag for flag in flags]
    assert run(recording, *flags) == 0
    assert (tmp_path / "out" / "a.srt").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [((), True), (("--no_second_pass",), False), (("--no-second-pass",), False)],
)
def test_the_second_pass_can_be_switched_off(run, recording, monkeypatch, flags, expected):
    given = {}
    monkeypatch.setattr(
        "speechjepa.inference.transcribe_files.transcribe_files",
        lambda *_, **options: iter(given.update(options) or ()),
    )
    assert run(recording, *flags) == 0
    assert given["second_pass"] is expected


@pytest.mark.parametrize(
    "flags", [("--batch_size", "0"), ("--decoder", "best"), ("--window_seconds", "-3")]
)
def test_usage_errors_exit_with_2(run, recording, flags):
    with pytest.raises(SystemExit) as stop:
        run(recording, *flags)
    assert stop.value.code == 2


def test_standard_input_needs_stream(run):
    with pytest.raises(ConfigError, match="give --stream"):
        run("-")


def test_an_elan_document_on_stdout_names_its_recording(run, recording, capsys):
    assert run(str(recording), "-f", "eaf") == 0
    assert f'RELATIVE_MEDIA_URL="./{recording.name}"' in capsys.readouterr().out


def test_several_formats_need_a_folder(run, recording):
    with pytest.raises(ConfigError, match="give -o OUT"):
        run(recording, "-f", "all")


@pytest.mark.parametrize("flags", [(), ("-f", "json"), ("-o", "out")])
def test_where_nothing_can_be_tried_no_model_is_loaded_and_the_status_is_2(
    tmp_path, monkeypatch, capsys, flags
):
    monkeypatch.setattr(speechjepa.inference.model, "load", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noaudio").mkdir()
    assert main(["transcribe", "nosuch.wav", "noaudio", "--model", "m", *flags]) == 2
    told = capsys.readouterr().err
    assert "error: nosuch.wav: there is no such file" in told
    assert "error: noaudio: the folder holds no audio file" in told
    assert told.endswith("error: there is nothing to transcribe\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [("--hotwords", "nosuch.txt"), ("-o", "a.wav")])
def test_arguments_are_looked_at_before_the_model_is_loaded(
    recording, tmp_path, monkeypatch, capsys, flags
):
    monkeypatch.setattr(speechjepa.inference.model, "load", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.chdir(tmp_path)
    assert main(["transcribe", str(recording), "--model", "m", *flags]) == 2
    assert f"error: {flags[1]}: " in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(run, recording, monkeypatch, capsys):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("speechjepa.inference.transcribe_files.transcribe", stop)
    assert run(recording) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_on_a_terminal_the_bar_does_not_touch_the_transcript(run, recording, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert run(recording) == 0
    out, err = capsys.readouterr()
    assert out == "abc de\n"
    assert "x real time" in err


def test_a_lone_transcript_is_printed_as_it_becomes_final(run, tmp_path, monkeypatch, capsys):
    printed_before = []
    hear = ToneModel.logits

    def logits(model, waveform, lengths):
        printed_before.append(capsys.readouterr().out)
        return hear(model, waveform, lengths)

    monkeypatch.setattr(ToneModel, "logits", logits)
    path = write(tmp_path / "long.wav", synthesize(("abc def" + "_" * 15) * 8))
    assert run(path, "--window_seconds", "4", "--overlap_seconds", "1") == 0
    text = "".join(printed_before) + capsys.readouterr().out
    assert text == "abc def\n" * 8
    assert printed_before[0] == "" and "abc def" in "".join(printed_before)


@pytest.mark.parametrize(("flags", "wanted"), [((), "auto"), (("--compute-type", "int8"), "int8")])
def test_the_number_format_is_chosen_and_said(run, recording, monkeypatch, capsys, flags, wanted):
    asked = {}

    def load(path, **options):
        asked.update(options)
        model = ToneModel()
        model.computation = "computing in bfloat16 (3 s of audio took: ...)"
        return model

    monkeypatch.setattr(speechjepa.inference.model, "load", load)
    assert run(recording, *flags) == 0
    assert asked["compute_type"] == wanted
    assert ("computing in bfloat16" in capsys.readouterr().err) == (wanted == "auto")
