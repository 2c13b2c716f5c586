"""Synthesise the corpus of the quickstart: six languages, Spanish with transcripts."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from speechjepa.data.synthetic.corpus import SyntheticCorpus, make_corpus
from speechjepa.errors import SpeechJepaError

SETTINGS = SyntheticCorpus(
    languages=("es", "en", "fi", "id", "it", "tr"),
    labelled=("es",),
    minutes=12,
    dev_minutes=4,
    test_minutes=2,
    label_minutes=(5, 10),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", required=True, type=Path, help="folder to write into")
    folder = parser.parse_args().data_root / "quickstart"
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    started = time.monotonic()
    try:
        make_corpus(folder, SETTINGS, num_workers=min(os.cpu_count() or 1, 8))
    except SpeechJepaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logging.info("%s is there after %.0f s", folder, time.monotonic() - started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
