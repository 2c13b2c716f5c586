"""Join every two languages of FLEURS that are there."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

from speechjepa.data.parallel import write_fleurs
from speechjepa.errors import SpeechJepaError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", required=True, type=Path, help="folder of the corpora")
    root = parser.parse_args().data_root
    languages = sorted(path.parent.name for path in (root / "fleurs").glob("*/train.tsv"))
    if len(languages) < 2:
        print(
            f"error: unpack two languages of FLEURS into {root / 'fleurs'}, so that there are "
            "fleurs/es_419/train.tsv and fleurs/es_419/audio/train (from "
            "huggingface.co/datasets/google/fleurs)",
            file=sys.stderr,
        )
        return 2
    try:
        for source, target in itertools.permutations(languages, 2):
            out = root / "fleurs_s2st" / f"{source}-{target}"
            for path in write_fleurs(root / "fleurs", source, target, out):
                print(path, file=sys.stderr)
    except SpeechJepaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
