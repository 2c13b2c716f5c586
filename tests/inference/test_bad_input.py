"""What bad input gets: a message of its own, while the others are transcribed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechjepa.audio.files import write_wav
from speechjepa.data.readers.annotations import read_annotations
from speechjepa.data.readers.common import as_line, as_text
from speechjepa.inference.transcribe_files import find_recordings, transcribe_files
from speechjepa.inference.writers import FORMATS
from tests.audio.test_files import write_video
from tests.tone_model import RATE, ToneModel, synthesize, write

SAID = synthesize("abc de")
NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]


def folder_of_everything(root: Path) -> dict[str, str | None]:
    """Write every kind of file that people have; return what each is refused with, None = good."""
    root.mkdir()
    write(root / "good-0.wav", SAID)
    write(root / "zz-good-1.wav", SAID)
    (root / "empty.wav").write_bytes(b"")
    write(root / "no-samples.wav", np.zeros(0, np.float32))
    whole = write(root / "whole.flac", SAID).read_bytes()
    (root / "truncated.flac").write_bytes(whole[: len(whole) // 2])
    wav = (root / "good-0.wav").read_bytes()
    (root / "truncated.wav").write_bytes(wav[: len(wav) // 2])
    (root / "flac-named.mp3").write_bytes(whole)
    (root / "text-named.wav").write_text("These are words, not sound.\n" * 40)
    eight = np.stack([SAID * (0.5 + channel / 8) for channel in range(8)], axis=1)
    soundfile.write(root / "eight-channels.wav", eight, RATE)
    soundfile.write(root / "8-bit.wav", SAID, RATE, subtype="PCM_U8")
    fast = synthesize("abc de", rate=192000)
    soundfile.write(root / "192-kHz.wav", fast, 192000)
    nan = SAID.copy()
    nan[1000] = np.nan
    soundfile.write(root / "nan.wav", nan, RATE, subtype="FLOAT")
    write_video(root / "silent-film.mp4", None)
    os.mkfifo(root / "pipe.wav")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "itself.wav").symlink_to(root / "itself.wav")
    (root / "gone.wav").symlink_to(root / "never-there.wav")
    return {
        "good-0.wav": None,
        "zz-good-1.wav": None,
        "empty.wav": "is empty",
        "no-samples.wav": "no audio samples",
        "whole.flac": None,
        "truncated.flac": "damaged or cut off",
        "truncated.wav": "is cut off",
        "flac-named.mp3": None,
        "text-named.wav": "not audio",
        "eight-channels.wav": None,
        "8-bit.wav": None,
        "192-kHz.wav": None,
        "nan.wav": "not numbers",
        "silent-film.mp4": "without a sound track",
        "pipe.wav": "is a pipe",
        "itself.wav": "cannot be opened",
        "gone.wav": "does not exist",
    }


def test_each_bad_file_has_its_message_and_stops_no_other(tmp_path: Path) -> None:
    expected = folder_of_everything(tmp_path / "in")
    out = tmp_path / "out"
    found = list(transcribe_files(ToneModel(), [tmp_path / "in"], output_dir=out))
    assert {outcome.path.name for outcome in found} == set(expected)
    for outcome in found:
        reason = expected[outcome.path.name]
        if reason is None:
            assert (outcome.status, outcome.message) == ("done", ""), outcome
            assert outcome.result["text"] == "abc de", outcome.path
        else:
            assert outcome.status == "failed", outcome
            assert reason in outcome.message, outcome
            assert outcome.path.name not in outcome.message, "said beside it already"
    assert len(list(out.iterdir())) == sum(reason is None for reason in expected.values())


def test_a_loop_of_folders_is_walked_once(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    write_wav(inner / "x.wav", SAID)
    (inner / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "again").symlink_to(inner, target_is_directory=True)
    assert [recording.path for recording in find_recordings([tmp_path])] == [inner / "x.wav"]
    assert [recording.path for recording in find_recordings([tmp_path, inner / "up"])] == [
        inner / "x.wav"
    ]


def test_a_link_to_another_folder_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("in", "disk"):
        (tmp_path / name).mkdir()
        write_wav(tmp_path / name / "x.wav", SAID)
    link = tmp_path / "in" / "more"
    link.symlink_to(tmp_path / "disk", target_is_directory=True)
    assert [r.path for r in find_recordings([tmp_path / "in"])] == [tmp_path / "in" / "x.wav"]
    assert f"{link}: links to folders are not followed" in caplog.text
    assert f"name {tmp_path / 'disk'}" in caplog.text


NAMES = [
    "two words.wav",
    'it\'s "quoted" `so`.wav',
    "émotion 🎤 ŋgá.wav",
    "two\nlines.wav",
    "a\ttab & <tag>.wav",
    "-o.wav",
    "100%s {x} $HOME.wav",
    "back\\slash.wav",
    "bell\a.wav",
    os.fsdecode(b"latin-\xe9.wav"),  # a name that is no UTF-8
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_transcribed_to_every_format(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "x.wav", SAID).rename(tmp_path / name)
    out = tmp_path / "out"
    (outcome,) = transcribe_files(ToneModel(), [path], output_dir=out, formats=tuple(FORMATS))
    assert outcome.status == "done", outcome
    stem = name.removesuffix(".wav")
    assert {made.name for made in out.iterdir()} == {f"{stem}.{suffix}" for suffix in FORMATS}
    assert (out / f"{stem}.txt").read_text() == "abc de\n"
    assert json.loads((out / f"{stem}.json").read_text())["text"] == "abc de"
    assert (out / f"{stem}.srt").read_text().endswith("abc de\n\n")
    assert len((out / f"{stem}.tsv").read_text().splitlines()) == 2
    for suffix in ("eaf", "TextGrid"):
        (segment,) = read_annotations(out / f"{stem}.{suffix}")
        assert segment.text == "abc de"


def test_elan_is_told_of_any_name(tmp_path: Path) -> None:
    from pympi.Elan import Eaf

    for name in NAMES:
        path = write(tmp_path / "x.wav", SAID).rename(tmp_path / name)
        list(transcribe_files(ToneModel(), [path], output_dir=tmp_path / "o", formats=("eaf",)))
        document = Eaf(str(tmp_path / "o" / f"{name.removesuffix('.wav')}.eaf"))
        (media,) = document.media_descriptors
        assert media["RELATIVE_MEDIA_URL"] == f"./{as_text(name)}".replace("\a", "\ufffd")


def test_names_in_a_list_take_one_line_each() -> None:
    assert as_line("two\nlines\t\x07.wav") == "two\\nlines\\t\\x07.wav"
    assert as_line("ŋgá 🎤.wav") == "ŋgá 🎤.wav"
    assert all(as_line(name).isprintable() for name in NAMES)


AS_NOBODY = f"""
import os, sys
from pathlib import Path
from speechjepa.inference.transcribe_files import transcribe_files
from tests.tone_model import ToneModel
folder = Path(sys.argv[1])
list(transcribe_files(ToneModel(), [folder / "a.wav"]))  # imports what nobody may not read
if os.getuid() == 0:
    os.setgid({NOBODY})
    os.setuid({NOBODY})
for outcome in transcribe_files(ToneModel(), [folder]):
    print(outcome.path.name, outcome.status, outcome.message, sep="|")
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_what_may_not_be_read_is_said_and_the_others_go_on() -> None:
    """As root nothing is forbidden, so the command runs in a process that is nobody."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is root's alone
        root = Path(folder)
        root.chmod(0o755)
        (root / "closed").mkdir()
        for name in ("a.wav", "secret.wav", "closed/c.wav"):
            write_wav(root / name, SAID)
        (root / "secret.wav").chmod(0)
        (root / "closed").chmod(0)
        try:
            done = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, folder],
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
                capture_output=True,
                text=True,
                timeout=300,
            )
        finally:
            (root / "closed").chmod(0o755)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split("|", 1) for line in done.stdout.splitlines())
    assert lines["a.wav"].startswith("done")
    assert lines["secret.wav"].startswith("failed|cannot be opened (Permission denied)")
    assert lines["closed"].startswith("failed|the folder cannot be listed (Permission denied)")
