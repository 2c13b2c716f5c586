"""Synthesise speech in 40 languages, and write what is said in phones, for the shipped encoder."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import re
import sys
import time
import unicodedata
from pathlib import Path

from speechjepa.data.readers import read_corpus, write_manifest
from speechjepa.data.synthetic.corpus import SyntheticCorpus, make_corpus
from speechjepa.data.synthetic.espeak import phonemes
from speechjepa.data.synthetic.recorded_voices import (
    VOICES,
    RecordedVoiceCorpus,
    make_recorded_voice_corpus,
    missing_packages,
)
from speechjepa.data.synthetic.text import LANGUAGES
from speechjepa.data.utterance import Utterance
from speechjepa.errors import SpeechJepaError

SETTINGS = SyntheticCorpus(
    languages=tuple(sorted(LANGUAGES)), minutes=12, dev_minutes=0.2, test_minutes=0.1
)
VARIED = SyntheticCorpus(
    languages=tuple(sorted(LANGUAGES)),
    minutes=12,
    dev_minutes=0.25,
    test_minutes=0.1,
    varied=True,
    invented=0.75,
    seed=1,
)
"""What the second lesson in phones is learnt from (tiny_varied.yaml)."""
VOICE_MINUTES = 30.0
"""Of each voice that was made of recordings of a person, for tiny_voices.yaml."""
RECORDED = {"prompts-en": "en-us", "prompts-es": "es"}
"""Recorded corpora with text whose licence allows shipping, and who reads them for espeak-ng."""
NOT_IPA = {
    "da": {"ε": "ɛ"},
    "en-gb-scotland": {":": "ː"},
    "pt-br": {"ɾə": "x", "y": "ɪ", "æ": "ɐ"},
    "th": {"ɜ": ""},
    "vi": {"ɜ": ""},
}
"""By the language as espeak-ng names it: what it writes where IPA is asked for (its own names of
phones, a Greek letter, and for tone 3 of Thai and Vietnamese a vowel), and what it means."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", required=True, type=Path, help="folder to write into")
    root = parser.parse_args().data_root
    folder = root / "pretrained"
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    started = time.monotonic()
    try:
        workers = min(os.cpu_count() or 1, 8)
        write_phones(folder, "synthetic", SETTINGS, "phones", workers)
        write_phones(folder, "varied", VARIED, "varied", workers)
        missing = missing_packages()
        if missing and not (folder / "voices").exists():
            logging.warning(
                "No voices of people, which tiny_voices.yaml needs; on Debian: apt install %s, "
                "then run again with --redo prepare",
                " ".join(missing),
            )
        else:
            write_voices(folder, workers)
    except SpeechJepaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logging.info("%s is there after %.0f s", folder, time.monotonic() - started)
    return 0


def write_phones(
    folder: Path, corpus: str, settings: SyntheticCorpus, name: str, workers: int
) -> None:
    """Make a corpus, and manifests `NAME-train.jsonl` and `NAME-dev.jsonl` with its phones.

    Args:
        folder: Of the corpora; what was recorded lies beside it.
        corpus: Folder in it.
        settings: Of the corpus.
        name: Of the manifests; the one of train holds what was recorded, too.
        workers: Processes that synthesise.
    """
    make_corpus(folder / corpus, settings, num_workers=workers)
    for split in ("train", "dev"):
        found = spoken(read_corpus(folder / corpus / split), None)
        if split == "train":
            for recorded, language in RECORDED.items():
                found += spoken(read_corpus(folder.parent / recorded / split), language)
        write_manifest(found, folder / f"{name}-{split}.jsonl", overwrite=True)


def write_voices(folder: Path, workers: int) -> None:
    """Make the corpus of voices of people, and the manifests of the third lesson.

    `voices-train.jsonl` holds it and what the second lesson holds; `voices-dev.jsonl` is that of
    the second lesson.

    Args:
        folder: Of the corpora; what was recorded lies beside it.
        workers: Processes that synthesise.
    """
    texts = [item.text or "" for item in read_corpus(folder.parent / "prompts-en" / "train")]
    words = sorted(set(re.findall(r"[a-z]+(?:'[a-z]+)?", " ".join(texts).lower())))
    settings = RecordedVoiceCorpus(minutes=VOICE_MINUTES, words=tuple(words))
    made = make_recorded_voice_corpus(folder / "voices", settings, num_workers=workers)
    of_voices = read_corpus(made / "train")
    found = [
        said
        for name, voice in VOICES.items()
        for said in spoken([item for item in of_voices if item.speaker == name], voice.espeak)
    ]
    found += read_corpus(folder / "varied-train.jsonl")
    write_manifest(found, folder / "voices-train.jsonl", overwrite=True)
    dev = read_corpus(folder / "varied-dev.jsonl")
    write_manifest(dev, folder / "voices-dev.jsonl", overwrite=True)


def spoken(utterances: list[Utterance], language: str | None) -> list[Utterance]:
    """Return the utterances that have text, with phones in its place.

    Args:
        utterances: Of one corpus.
        language: Code of espeak-ng; None = that of each utterance's language.
    """
    found = []
    for utterance in utterances:
        if not utterance.text:
            continue
        code = language or LANGUAGES[utterance.language or ""].voice
        ipa = phonemes(utterance.text, code)
        for written, meant in NOT_IPA.get(code, {}).items():
            ipa = ipa.replace(written, meant)
        phones = plain_phones(ipa)
        if phones:
            found.append(dataclasses.replace(utterance, text=phones))
    return found


def plain_phones(ipa: str) -> str:
    """Return IPA without stress, tone, word boundaries and marks of a change of language.

    Stress, tone and word boundaries are a language's own; the segments and their length are what
    languages share.
    """
    ipa = unicodedata.normalize("NFD", re.sub(r"\([a-z-]*\)", "", ipa))
    return "".join(c for c in ipa if unicodedata.category(c)[0] in "LM" and c not in "ˈˌ˥˦˧˨˩")


if __name__ == "__main__":
    sys.exit(main())
