"""Join CVSS with Common Voice, for every language of which both are there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from speechjepa.data.parallel import write_cvss
from speechjepa.errors import SpeechJepaError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", required=True, type=Path, help="folder of the corpora")
    root = parser.parse_args().data_root
    languages = [
        folder.name
        for folder in sorted((root / "cvss").glob("*"))
        if (root / "common_voice" / folder.name / "clips").is_dir()
    ]
    if not languages:
        print(
            f"error: unpack CVSS-C of a language, say es, into {root / 'cvss' / 'es'} (from "
            "github.com/google-research-datasets/cvss), and Common Voice 4 of it into "
            f"{root / 'common_voice' / 'es'} (from commonvoice.mozilla.org, who ask for consent)",
            file=sys.stderr,
        )
        return 2
    try:
        for language in languages:
            for path in write_cvss(
                root / "cvss" / language, root / "common_voice" / language, language
            ):
                print(path, file=sys.stderr)
    except SpeechJepaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
