"""Speech by voices made of recordings of people: Festival's, Flite's, SVOX Pico's and RHVoice's.

espeak-ng speaks many languages by one model of the vocal tract; these voices speak few, but are
joined of, or trained on, what people said. The programs are run as commands, and have to be
installed (Debian: the packages in `VOICES`, and `festival`).
"""

from __future__ import annotations

import dataclasses
import html
import json
import math
import os
import random
import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speechjepa.data.synthetic.acoustics import WIDE, disturb
from speechjepa.data.synthetic.corpus import (
    plain_json,
    stored_settings,
    write_json,
    written_whole,
)
from speechjepa.data.synthetic.espeak import SAMPLE_RATE
from speechjepa.data.synthetic.invented import NUM_WORDS, WordInventor
from speechjepa.data.synthetic.text import LANGUAGES, words_of_locale
from speechjepa.errors import DataError
from speechjepa.progress import track


class RecordedVoice(NamedTuple):
    """A voice of Festival, Flite, Pico or RHVoice."""

    language: str
    """ISO 639."""
    espeak: str
    """Who reads its texts in phones: a language of espeak-ng."""
    package: str
    """Debian's, which tells the program: `_program`."""
    encoding: str = "utf-8"
    """Of what Festival is given."""
    spelt: bool = True
    """Whether both read any word by the same rules; otherwise only known words are said."""


VOICES = {
    "upc_ca_ona_hts": RecordedVoice("ca", "ca", "festvox-ca-ona-hts", "iso-8859-15"),
    "czech_dita": RecordedVoice("cs", "cs", "festvox-czech-dita", "iso-8859-2"),
    "czech_krb": RecordedVoice("cs", "cs", "festvox-czech-krb", "iso-8859-2"),
    "czech_machac": RecordedVoice("cs", "cs", "festvox-czech-machac", "iso-8859-2"),
    "czech_ph": RecordedVoice("cs", "cs", "festvox-czech-ph", "iso-8859-2"),
    "kal_diphone": RecordedVoice("en", "en-us", "festvox-kallpc16k", spelt=False),
    "ked_diphone": RecordedVoice("en", "en-us", "festvox-kdlpc16k", spelt=False),
    "cmu_us_slt_arctic_hts": RecordedVoice("en", "en-us", "festvox-us-slt-hts", spelt=False),
    "hy_fi_mv_diphone": RecordedVoice("fi", "fi", "festvox-suopuhe-mv", "iso-8859-1"),
    "suo_fi_lj_diphone": RecordedVoice("fi", "fi", "festvox-suopuhe-lj", "iso-8859-1"),
    "hindi_NSK_diphone": RecordedVoice("hi", "hi", "festvox-hi-nsk"),
    "lp_diphone": RecordedVoice("it", "it", "festvox-italp16k", "iso-8859-1"),
    "pc_diphone": RecordedVoice("it", "it", "festvox-itapc16k", "iso-8859-1"),
    "marathi_NSK_diphone": RecordedVoice("mr", "mr", "festvox-mr-nsk"),
    "msu_ru_nsh_clunits": RecordedVoice("ru", "ru", "festvox-ru", spelt=False),
    "telugu_NSK_diphone": RecordedVoice("te", "te", "festvox-te-nsk"),
    "awb": RecordedVoice("en", "en-gb-scotland", "flite", spelt=False),
    "rms": RecordedVoice("en", "en-us", "flite", spelt=False),
    "slt": RecordedVoice("en", "en-us", "flite", spelt=False),
    "de-DE": RecordedVoice("de", "de", "libttspico-utils"),
    "en-GB": RecordedVoice("en", "en-gb", "libttspico-utils", spelt=False),
    "en-US": RecordedVoice("en", "en-us", "libttspico-utils", spelt=False),
    "es-ES": RecordedVoice("es", "es", "libttspico-utils"),
    "fr-FR": RecordedVoice("fr", "fr-fr", "libttspico-utils"),
    "it-IT": RecordedVoice("it", "it", "libttspico-utils"),
    "alan": RecordedVoice("en", "en-gb-scotland", "rhvoice-english", spelt=False),
    "bdl": RecordedVoice("en", "en-us", "rhvoice-english", spelt=False),
    "clb": RecordedVoice("en", "en-us", "rhvoice-english", spelt=False),
    "spomenka": RecordedVoice("eo", "eo", "rhvoice-esperanto"),
    "Leticia-F123": RecordedVoice("pt", "pt-br", "rhvoice-brazilian-portuguese"),
    "aleksandr": RecordedVoice("ru", "ru", "rhvoice-russian", spelt=False),
    "anna": RecordedVoice("ru", "ru", "rhvoice-russian", spelt=False),
    "elena": RecordedVoice("ru", "ru", "rhvoice-russian", spelt=False),
    "irina": RecordedVoice("ru", "ru", "rhvoice-russian", spelt=False),
    "anatol": RecordedVoice("uk", "uk", "rhvoice-ukrainian"),
    "natalia": RecordedVoice("uk", "uk", "rhvoice-ukrainian"),
}
"""By the name that the program has for it; of RHVoice's voices by that of their folder.

Most of RHVoice's others may not be sold or not be changed; the rest are of speakers who are here
already, or of Kyrgyz, of whose words espeak-ng reads one in five wrongly."""

FORMAT_VERSION = 1
"""Part of the settings in corpus.json: raised when the same settings give other audio."""
INVENTED_SHARE = 0.75
"""Of the utterances of voices that read by rules."""
_STRETCH, _FORMANT_RATIO = (0.6, 1.4), (0.85, 1.18)
_BATCH = 10
"""Utterances that Festival is started for: on some it ends at once (SIGSEGV), with the rest."""
_NUKTA = {unicodedata.normalize("NFC", letter): letter for letter in map(chr, range(0x958, 0x960))}
"""Letters that Unicode never composes, and Festival's voices of Hindi and Marathi know composed
only: they leave out the rest of the text."""
_MOST_SILENT = 10
"""Batches in a row without a sound, before a voice is given up."""
_TIMEOUT_SECONDS = 120
_RHVOICE = "RHVoice-test"
_RHVOICE_VOICES = Path("/usr/share/RHVoice/voices")
"""A folder for each. Asked for a voice that is not there, the program speaks with another."""


@dataclass(frozen=True, kw_only=True)
class RecordedVoiceCorpus:
    """What a corpus of such voices holds; the same settings and programs give the same files."""

    voices: tuple[str, ...] = tuple(VOICES)
    """Names in `VOICES`."""
    minutes: float = 20.0
    """Audio of each voice (minutes)."""
    words: tuple[str, ...] = ()
    """More words for the voices of English, which say known ones only."""
    seed: int = 0
    """Of texts, manners and disturbances."""

    def __post_init__(self) -> None:
        if not self.voices or set(self.voices) - VOICES.keys():
            raise DataError(
                f"`voices` must be among {', '.join(VOICES)}, but is {list(self.voices)} instead."
            )
        if len(set(self.voices)) < len(self.voices):
            raise DataError(f"`voices` must be named once, but is {list(self.voices)} instead.")
        if not 0 < self.minutes < math.inf:
            raise DataError(f"`minutes` must be more than 0, but is {self.minutes:g} instead.")
        for word in self.words:
            if not word.replace("'", "").isalpha():
                raise DataError(f"`words` must be of letters, but has {word!r} instead.")


class _Said(NamedTuple):
    """One utterance to speak."""

    id: str
    text: str
    stretch: float


def make_recorded_voice_corpus(
    folder: str | os.PathLike[str], settings: RecordedVoiceCorpus, *, num_workers: int = 2
) -> Path:
    """Write a corpus with one split, `<folder>/train`, as `make_corpus` does.

    Args:
        folder: Where to write; absent, or such a corpus, which is left alone if its settings are
            the same and replaced otherwise.
        settings: What to write.
        num_workers: Processes.

    Returns:
        The folder.

    Raises:
        DataError: A program or voice is not installed, or `folder` holds something else.
    """
    folder = Path(folder).absolute()
    wanted = {"format_version": FORMAT_VERSION, **plain_json(dataclasses.asdict(settings))}
    if folder.exists() and stored_settings(folder) == wanted:
        return folder
    missing = missing_packages(settings.voices)
    if missing:
        raise DataError(f"voices are missing; on Debian: apt install {' '.join(missing)}")
    with written_whole(folder) as partial:
        (partial / "train" / "audio").mkdir(parents=True)
        jobs = [(partial / "train", voice, settings) for voice in settings.voices]
        context = get_context("spawn")
        with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
            made = track(pool.map(_speak_voice, jobs), "Synthesising voices", total=len(jobs))
            rows = [row for of_voice in made for row in of_voice]
        with open(partial / "train" / "metadata.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        minutes = round(sum(row["duration"] for row in rows) / 60.0, 2)
        total = {"utterances": len(rows), "minutes": minutes}
        write_json(partial / "corpus.json", {"settings": wanted, "splits": {"train": total}})
    return folder


def missing_packages(voices: Sequence[str] = tuple(VOICES)) -> list[str]:
    """Return what has to be installed on Debian before these names of `VOICES` can speak."""
    of_festival = _festival_voices()
    missing = set()
    for name in voices:
        package, program = VOICES[name].package, _program(name)
        if program == "festival" and name not in of_festival:
            missing |= {"festival", package}
        elif program == _RHVOICE and not _rhvoice_name(name):
            missing.add(package)
        if shutil.which(program) is None:
            missing.add({"festival": "festival", _RHVOICE: "rhvoice"}.get(program, package))
    return sorted(missing)


def _program(name: str) -> str:
    """Return the command that speaks with a voice."""
    package = VOICES[name].package
    if package.startswith("rhvoice-"):
        return _RHVOICE
    return {"flite": "flite", "libttspico-utils": "pico2wave"}.get(package, "festival")


def _rhvoice_name(name: str) -> str:
    """Return the name that a voice of RHVoice has in its own file; empty if not installed."""
    try:
        info = (_RHVOICE_VOICES / name / "voice.info").read_text("utf-8")
    except OSError:
        return ""
    found = re.search("^name=(.+)$", info, re.MULTILINE)
    return found[1].strip() if found else ""


def _festival_voices() -> str:
    """Return what Festival says that it speaks with; empty where it is not installed."""
    if shutil.which("festival") is None:
        return ""
    return _run(["festival", "--pipe"], "(print (voice.list))")


def _run(command: list[str], given: str = "") -> str:
    """Return what a command writes; it may fail, which shows in what it leaves undone."""
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"{command[0]} gave no answer in {_TIMEOUT_SECONDS} s: {command}"
        ) from error
    return done.stdout


def _speak_voice(job: tuple[Path, str, RecordedVoiceCorpus]) -> list[dict[str, Any]]:
    """Write audio of one voice until there is enough; return its rows."""
    import soundfile

    split, name, settings = job
    voice = VOICES[name]
    inventor = _inventor(voice, settings)
    rows: list[dict[str, Any]] = []
    seconds, silent, first = 0.0, 0, 0
    while seconds < 60.0 * settings.minutes:
        ids = [f"{name}-{number:05d}" for number in range(first, first + _BATCH)]
        drawn = [_draw(said_id, voice, inventor, settings.seed) for said_id in ids]
        batch = [said for said in drawn if _is_written(said.text, voice.encoding)]
        first += _BATCH
        if not batch:
            continue
        before = len(rows)
        for said, spoken in zip(batch, _speak(name, batch), strict=True):
            if spoken is None:
                continue
            waveform = _vary(*spoken, settings.seed, said)
            path = split / "audio" / f"{said.id}.flac"
            soundfile.write(path, waveform, SAMPLE_RATE, subtype="PCM_16")
            duration = round(len(waveform) / SAMPLE_RATE, 4)
            seconds += duration
            rows.append(
                {
                    "file_name": f"audio/{path.name}",
                    "duration": duration,
                    "id": said.id,
                    "speaker": name,
                    "lang": voice.language,
                    "text": said.text,
                }
            )
        silent = silent + 1 if len(rows) == before else 0
        if silent == _MOST_SILENT:
            raise DataError(
                f"The voice {name!r} says nothing for {batch[0].text!r} and many other texts; "
                f"install {voice.package} again, with the packages that it may recommend."
            )
    return rows


def _inventor(voice: RecordedVoice, settings: RecordedVoiceCorpus) -> WordInventor:
    """Return who knows the words of a voice's language, and more for English."""
    if voice.language not in LANGUAGES:
        return WordInventor(words_of_locale(voice.language))
    inventor = WordInventor.of_language(voice.language, settings.seed)
    return WordInventor([*inventor.words, *settings.words]) if voice.language == "en" else inventor


def _draw(said_id: str, voice: RecordedVoice, inventor: WordInventor, seed: int) -> _Said:
    """Return what an utterance of a voice says, and how slowly."""
    draw = random.Random(f"{seed}/words/{said_id}")
    if voice.spelt and draw.random() < INVENTED_SHARE:
        text = inventor.utterance(draw)
    else:
        text = " ".join(draw.choices(inventor.words, k=draw.choice(NUM_WORDS)))
    return _Said(said_id, text, draw.uniform(*_STRETCH))


def _is_written(text: str, encoding: str) -> bool:
    """Whether the encoding has every letter: what is not there would not be said."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _speak(name: str, batch: Sequence[_Said]) -> list[tuple[np.ndarray, int] | None]:
    """Return samples and their rate of each; None where the voice cannot say it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.wav" for number in range(len(batch))]
        if _program(name) != "festival":
            for said, path in zip(batch, paths, strict=True):
                _run(*_command(name, said, path))
        else:
            script = Path(folder) / "speak.scm"
            lines = [f"(voice_{name})"]
            for said, path in zip(batch, paths, strict=True):
                text = said.text.replace("\\", " ").replace('"', " ")
                for apart, composed in _NUKTA.items():
                    text = text.replace(apart, composed)
                lines.append(f"(Parameter.set 'Duration_Stretch {said.stretch:.3f})")
                utterance = f'(utt.synth (Utterance Text "{text}"))'
                lines.append(f'(unwind-protect (utt.save.wave {utterance} "{path}" \'riff) nil)')
            script.write_text("\n".join(lines) + "\n", VOICES[name].encoding)
            _run(["festival", "--batch", str(script)])
        return [_read(path) for path in paths]


def _command(name: str, said: _Said, path: Path) -> tuple[list[str], str]:
    """Return how another program than Festival is asked for one utterance, and what it is given."""
    program = _program(name)
    if program == "flite":
        stretch = f"duration_stretch={said.stretch:.3f}"
        return [program, "-voice", name, "--setf", stretch, "-t", said.text, str(path)], ""
    rate = f"{100 / said.stretch:.0f}"
    if program == _RHVOICE:
        speaker = _rhvoice_name(name)
        return [program, "-p", speaker, "-r", rate, "-o", str(path)], f"{said.text}\n"
    speed = f"<speed level='{rate}'>{html.escape(said.text, quote=False)}</speed>"
    return [program, "-l", name, "-w", str(path), speed], ""


def _read(path: Path) -> tuple[np.ndarray, int] | None:
    """Return samples and their rate; None where there is no sound."""
    import soundfile

    try:
        waveform, rate = soundfile.read(path, dtype="float32")
    except (RuntimeError, OSError):
        return None
    return (waveform, rate) if np.abs(waveform).max(initial=0.0) > 0.001 else None


def _vary(waveform: np.ndarray, rate: int, seed: int, said: _Said) -> np.ndarray:
    """Return it with another vocal tract, in another place."""
    import soxr

    rng = np.random.default_rng(list(f"{seed}/{said.id}".encode()))
    ratio = float(rng.uniform(*_FORMANT_RATIO))
    waveform = soxr.resample(waveform, rate * ratio, SAMPLE_RATE)
    return disturb(waveform, rng, SAMPLE_RATE, WIDE)
