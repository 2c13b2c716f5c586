"""Write a synthetic corpus as a Hugging Face AudioFolder, with voices held out of training."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechjepa.data.synthetic.espeak import espeak_voices
from speechjepa.data.synthetic.invented import WordInventor
from speechjepa.data.synthetic.spoken import Job, make_utterance
from speechjepa.data.synthetic.text import LANGUAGES, Sentence, draw_meaning, express
from speechjepa.errors import DataError
from speechjepa.progress import track

TRAIN_VOICES = (
    "m1 m2 m3 m4 m5 m7 f1 f2 f3 f4 Alex Alicia Andrea Denis Diogo Gene Henrique Lee Marco "
    "Michael adam anika belinda caleb ed gustave ian linda max miguel pablo quincy rob shelby"
).split()
DEV_VOICES = "m6 f5 Hugo aunty steph victor".split()
TEST_VOICES = "m8 Annie Mike Mario edward sandro".split()

FORMAT_VERSION = 1
"""Part of the settings in corpus.json: raised when the same settings give other audio."""

_LATER = {"varied": False, "invented": 0.0}
"""Settings that corpora of earlier versions do not name, as they were."""

# Which part of the endless list of meanings each split says: they never meet.
_FIRST_INDEX = {"train": 0, "dev": 1_000_000_000, "test": 2_000_000_000}
SPLITS = ("dev", "test", "train")
_CHUNK = 16


@dataclass(frozen=True, kw_only=True)
class SyntheticCorpus:
    """What a synthetic corpus holds; the same settings give the same files."""

    languages: tuple[str, ...]
    """Codes of `LANGUAGES` that `train` is spoken in."""
    labelled: tuple[str, ...] = ()
    """Those of them that have transcripts, `dev` and `test`; empty = all."""
    minutes: float = 10.0
    """Audio per language in `train` (minutes)."""
    dev_minutes: float = 3.0
    """Audio per labelled language in `dev` (minutes)."""
    test_minutes: float = 3.0
    """Audio per labelled language in `test` (minutes)."""
    label_minutes: tuple[int, ...] = (5,)
    """Lists of ids to write into `train`: 5 = `5min.txt`, five minutes per labelled language."""
    train_voices: tuple[str, ...] = tuple(TRAIN_VOICES)
    """Voices of espeak-ng that speak `train`."""
    dev_voices: tuple[str, ...] = tuple(DEV_VOICES)
    """Voices that speak `dev` and nothing else."""
    test_voices: tuple[str, ...] = tuple(TEST_VOICES)
    """Voices that speak `test` and nothing else."""
    disturbed: bool = True
    """Whether room, microphone, noise and level vary; otherwise the synthesiser's own signal."""
    varied: bool = False
    """Whether voices, places and equipment differ more than where one works: speech for an encoder
    that shall take whatever comes (`acoustics.WIDE`)."""
    invented: float = 0.0
    """Share of the utterances that are invented words (`invented.WordInventor`)."""
    audio_format: str = "flac"
    """"flac" (lossless) or "opus" (a sixth of the size, slower to read)."""
    seed: int = 0
    """Of texts, voices and disturbances."""

    def __post_init__(self) -> None:
        for code in (*self.languages, *self.labelled):
            if code not in LANGUAGES:
                known = ", ".join(sorted(LANGUAGES))
                raise DataError(f"`languages` must be among {known}, but has {code!r} instead.")
        if not self.languages or not set(self.labelled) <= set(self.languages):
            raise DataError(
                f"`labelled` must be among `languages` {list(self.languages)}, "
                f"but is {list(self.labelled)} instead."
            )
        if self.audio_format not in ("flac", "opus"):
            raise DataError(
                f"`audio_format` must be flac or opus, but is {self.audio_format!r} instead."
            )
        if not 0 <= self.invented <= 1:
            raise DataError(f"`invented` must be 0 to 1, but is {self.invented:g} instead.")
        for minutes in self.label_minutes:
            if not 0 < minutes <= self.minutes:
                raise DataError(
                    f"`label_minutes` must be at most `minutes` ({self.minutes:g}), "
                    f"but has {minutes} instead."
                )
        voices = [*self.train_voices, *self.dev_voices, *self.test_voices]
        shared = sorted({voice for voice in voices if voices.count(voice) > 1})
        if shared:
            raise DataError(f"Each voice must be in one split, but {', '.join(shared)} is in two.")

    @property
    def labelled_languages(self) -> tuple[str, ...]:
        return self.labelled or self.languages

    def plan(self, split: str) -> tuple[float, tuple[str, ...], tuple[str, ...]]:
        """Return a split's seconds per language, its languages and its voices."""
        if split == "train":
            return 60.0 * self.minutes, self.languages, self.train_voices
        if split == "dev":
            return 60.0 * self.dev_minutes, self.labelled_languages, self.dev_voices
        return 60.0 * self.test_minutes, self.labelled_languages, self.test_voices


def make_corpus(
    folder: str | os.PathLike[str], settings: SyntheticCorpus, *, num_workers: int = 2
) -> Path:
    """Write a corpus: `<folder>/<split>/metadata.jsonl`, `<split>/audio/`, `train/5min.txt`.

    The columns are file_name, duration (seconds), id, speaker, lang, key (the same in all
    languages that say the same) and text, which the unlabelled languages do not have. A corpus
    that is there with the same settings is left alone; one with other settings is replaced. An
    interrupted run leaves nothing under `folder`.

    Args:
        folder: Where to write; absent, or a synthetic corpus.
        settings: What to write.
        num_workers: Processes that synthesise; 1 = this one.

    Returns:
        The folder.

    Raises:
        DataError: A package is missing, a voice does not exist, or `folder` holds something else.
    """
    folder = Path(folder).absolute()
    wanted = {"format_version": FORMAT_VERSION, **plain_json(dataclasses.asdict(settings))}
    if folder.exists():
        if {**_LATER, **(stored_settings(folder) or {})} == wanted:
            return folder
    for voice in (*settings.train_voices, *settings.dev_voices, *settings.test_voices):
        if voice not in espeak_voices():
            known = ", ".join(espeak_voices())
            raise DataError(f"espeak-ng has no voice {voice!r}; it has {known}.")
    totals = {}
    spoken: dict[str, set[str]] = {language: set() for language in settings.languages}
    with written_whole(folder) as partial, mapper(num_workers) as run:
        for split in SPLITS:
            rows = _write_split(partial / split, split, settings, spoken, run)
            totals[split] = {
                "utterances": len(rows),
                "minutes": round(sum(row["duration"] for row in rows) / 60.0, 2),
            }
        write_json(partial / "corpus.json", {"settings": wanted, "splits": totals})
    return folder


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which takes the place of `folder` once everything is in it."""
    partial = folder.with_name(f".{folder.name}.incomplete")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def _write_split(
    folder: Path,
    split: str,
    settings: SyntheticCorpus,
    spoken: dict[str, set[str]],
    run: Callable[[Sequence[Job]], Iterable[float]],
) -> list[dict[str, Any]]:
    (folder / "audio").mkdir(parents=True)
    seconds, languages, voices = settings.plan(split)
    rows: list[dict[str, Any]] = []
    for language in track(languages, f"Synthesising {split}", total=len(languages)):
        candidates = _candidates(split, language, voices, settings, spoken[language])
        rows += _speak(folder, candidates, language, seconds, settings, run)
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            if row["lang"] not in settings.labelled_languages:
                row = {name: value for name, value in row.items() if name != "text"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    if split == "train":
        for minutes in settings.label_minutes:
            ids = _draw_labels(rows, minutes, settings)
            (folder / f"{minutes}min.txt").write_text("".join(f"{i}\n" for i in ids))
    return rows


def _candidates(
    split: str,
    language: str,
    voices: tuple[str, ...],
    settings: SyntheticCorpus,
    spoken: set[str],
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield rows without duration, each with what to say; no text twice in a language."""
    inventor = WordInventor.of_language(language, settings.seed) if settings.invented else None
    for index in itertools.count(_FIRST_INDEX[split]):
        number = index - _FIRST_INDEX[split]
        name = f"{language}-{split}-{number:06d}"
        draw = random.Random(f"{settings.seed}/words/{name}")
        sentence: Sentence | None
        if inventor is not None and draw.random() < settings.invented:
            words = inventor.utterance(draw)
            sentence = Sentence(f"{settings.seed}-{name}", words, words)
        else:
            sentence = express(draw_meaning(index, seed=settings.seed), language)
        if sentence is None or sentence.text in spoken:
            continue
        spoken.add(sentence.text)
        voice = random.Random(f"{settings.seed}/voice/{name}").choice(voices)
        row = {
            "file_name": f"audio/{name}.{settings.audio_format}",
            "duration": 0.0,
            "id": name,
            "speaker": voice,
            "lang": language,
            "key": sentence.key,
            "text": sentence.text,
        }
        yield row, sentence.spoken


def _speak(
    folder: Path,
    candidates: Iterator[tuple[dict[str, Any], str]],
    language: str,
    seconds: float,
    settings: SyntheticCorpus,
    run: Callable[[Sequence[Job]], Iterable[float]],
) -> list[dict[str, Any]]:
    """Synthesise candidates in their order until there are `seconds` of audio."""
    rows: list[dict[str, Any]] = []
    total = 0.0
    while total < seconds:
        mean = total / len(rows) if rows else 4.0
        wave = list(itertools.islice(candidates, int((seconds - total) / mean) + 1))
        jobs = [
            Job(
                path=str(folder / row["file_name"]),
                spoken=spoken,
                language=LANGUAGES[language].voice,
                voice=row["speaker"],
                disturbed=settings.disturbed,
                seed=f"{settings.seed}/{row['id']}",
                varied=settings.varied,
            )
            for row, spoken in wave
        ]
        for (row, _), duration in zip(wave, run(jobs), strict=True):
            if total >= seconds:
                # The number of utterances a wave needs is a guess; what is too much goes.
                (folder / row["file_name"]).unlink()
                continue
            row["duration"] = duration
            rows.append(row)
            total += duration
    return rows


def _draw_labels(
    rows: list[dict[str, Any]], minutes: float, settings: SyntheticCorpus
) -> list[str]:
    """Return ids that together have `minutes` per labelled language; a longer list holds every
    shorter one."""
    ids: list[str] = []
    for language in settings.labelled_languages:
        of_language = [row for row in rows if row["lang"] == language]
        random.Random(f"{settings.seed}/labels/{language}").shuffle(of_language)
        total = 0.0
        for row in of_language:
            if total >= 60.0 * minutes:
                break
            ids.append(row["id"])
            total += row["duration"]
    return sorted(ids)


@contextmanager
def mapper(num_workers: int) -> Iterator[Callable[[Sequence[Job]], Iterable[float]]]:
    """Lend a function that runs jobs, in this process or in several, results in order."""
    if num_workers <= 1:
        yield lambda jobs: map(make_utterance, jobs)
        return
    # Not forked: espeak-ng and the audio libraries are not safe in the child of a threaded parent.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        yield lambda jobs: pool.map(make_utterance, jobs, chunksize=_CHUNK)


def stored_settings(folder: Path) -> dict[str, Any] | None:
    """Return the settings that a folder was written with; None where it is empty."""
    path = folder / "corpus.json"
    if not path.is_file():
        if any(folder.iterdir()):
            raise DataError(
                "exists and is not a synthetic corpus; name another folder.", path=folder
            )
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("is not a description of a synthetic corpus.", path=path) from error
    if not isinstance(settings, dict):
        raise DataError("is not a description of a synthetic corpus.", path=path)
    return settings


def plain_json(value: dict[str, Any]) -> dict[str, Any]:
    """Return settings as JSON gives them back: tuples are lists."""
    return json.loads(json.dumps(value))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
