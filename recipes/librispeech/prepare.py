"""Fetch LibriSpeech and the label subsets of Libri-light, and write their manifests.

python recipes/librispeech/prepare.py --data-root DIR

Writes DIR/librispeech/{train-960,dev-clean,dev-other}.jsonl and 10min.txt, 1h.txt, 10h.txt,
100h.txt beside them. About 60 GB are fetched and as much is unpacked; what is there already is
left alone, and a broken download goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from speechjepa.audio.files import probe_audio
from speechjepa.data.readers import write_manifest
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError, SpeechJepaError

SPEECH_URL = "https://www.openslr.org/resources/12"
LABELS_URL = "https://dl.fbaipublicfiles.com/librilight/data"
TRAIN = ("train-clean-100", "train-clean-360", "train-other-500")
DEV = ("dev-clean", "dev-other")
LABELS = "librispeech_finetuning"
# https://arxiv.org/abs/1912.07875, section 3: 10 h = 1 h + 9 h, 1 h = 6 x 10 min.
SUBSETS = {"10min": ("1h/0",), "1h": ("1h",), "10h": ("1h", "9h")}


def fetch(url: str, target: Path) -> None:
    """Download a file; a broken download goes on where it stopped."""
    partial = target.with_name(target.name + ".part")
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    print(f"fetching {url}" + (f" from byte {have}" if have else ""), file=sys.stderr)
    try:
        with urllib.request.urlopen(request) as answer:
            mode = "ab" if have and answer.status == 206 else "wb"
            with open(partial, mode) as file:
                shutil.copyfileobj(answer, file, 2**20)
    except (urllib.error.URLError, OSError) as error:
        raise DataError(
            f"cannot be fetched ({error}). Run the same command to go on, or put the file "
            f"there as {target}",
            path=url,
        ) from error
    os.replace(partial, target)


def unpack(url: str, name: str, suffix: str, folder: Path, inside: str) -> Path:
    """Fetch and unpack an archive unless it was; return the folder that it holds."""
    done = folder / f".{name}.unpacked"
    archive = folder / f"{name}{suffix}"
    if not done.exists():
        if not archive.exists():
            fetch(f"{url}/{name}{suffix}", archive)
        print(f"unpacking {archive}", file=sys.stderr)
        try:
            with tarfile.open(archive) as file:
                file.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"cannot be unpacked ({error}); remove it", path=archive) from error
        done.touch()
    return folder / inside


def read_split(folder: Path) -> Iterator[Utterance]:
    """Yield the utterances of one split, for example LibriSpeech/dev-clean."""
    for listing in sorted(folder.glob("*/*/*.trans.txt")):
        for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), start=1):
            name, _, text = line.partition(" ")
            path = listing.parent / f"{name}.flac"
            yield Utterance(
                id=name,
                audio_path=path.resolve(),
                duration=probe_audio(path).duration,
                text=text,
                speaker=name.partition("-")[0],
                language="en",
                split=folder.name,
                source=f"{listing}:{number}",
            )


def prepare(root: Path, speech_url: str, labels_url: str) -> None:
    """Fetch, unpack, list.

    Raises:
        DataError: A file cannot be fetched, or an archive does not hold what it should.
    """
    folder = root / "librispeech"
    folder.mkdir(parents=True, exist_ok=True)
    splits = {
        name: unpack(speech_url, name, ".tar.gz", folder, f"LibriSpeech/{name}")
        for name in (*TRAIN, *DEV)
    }
    labels = unpack(labels_url, LABELS, ".tgz", folder, LABELS)
    train = [utterance for name in TRAIN for utterance in read_split(splits[name])]
    write_manifest(train, folder / "train-960.jsonl", overwrite=True)
    for name in DEV:
        write_manifest(read_split(splits[name]), folder / f"{name}.jsonl", overwrite=True)
    known = {utterance.id for utterance in train}
    lists = {"100h": sorted(u.id for u in train if u.split == "train-clean-100")}
    for subset, parts in SUBSETS.items():
        lists[subset] = sorted(
            path.stem for part in parts for path in (labels / part).rglob("*.flac")
        )
    for subset, ids in lists.items():
        unknown = [name for name in ids if name not in known]
        if not ids or unknown:
            what = f"{unknown[0]} is not in LibriSpeech" if unknown else "it is empty"
            raise DataError(f"the subset {subset} cannot be used: {what}", path=labels)
        (folder / f"{subset}.txt").write_text("".join(f"{i}\n" for i in ids), encoding="utf-8")
        print(f"{subset}: {len(ids)} utterances", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return the exit status."""
    parser = argparse.ArgumentParser(description="Fetch LibriSpeech and write its manifests.")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--speech-url", default=SPEECH_URL, help="or a mirror, or file:///folder")
    parser.add_argument("--labels-url", default=LABELS_URL)
    args = parser.parse_args(argv)
    try:
        prepare(args.data_root, args.speech_url.rstrip("/"), args.labels_url.rstrip("/"))
    except SpeechJepaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
