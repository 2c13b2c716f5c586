"""`speechjepa info`: what a bundle holds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the parser of `info`."""
    parser = subparsers.add_parser(
        "info",
        help="what a bundle holds: sizes, training, languages, vocabulary, results, licence",
        description="Say what a model is and where it comes from.",
    )
    parser.add_argument("model", metavar="MODEL", help="bundle folder, or the folder of a run")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: argparse.Namespace) -> int:
    """Print what the bundle holds."""
    from speechjepa.inference.model import load

    content = load(args.model).info()
    if args.json:
        print(json.dumps(content, indent=2, ensure_ascii=False, default=str))
    else:
        print("\n".join(describe(content)))
    return 0


def describe(content: Mapping[str, Any]) -> list[str]:
    """Return the lines that say what a bundle holds."""
    lines = [
        f"model       {content['path']}",
        f"parameters  {content['parameters'] / 1e6:.2f} M",
        f"frames      {_frames(content)}",
        f"encoder     {_settings(content['encoder'])}",
    ]
    if content["translates"] is not None:
        lines.append(f"translates  {_settings(content['translates'])}")
    elif content["future"] is not None:
        lines.append(f"future      {_settings(content['future'])}: for `speechjepa surprise` alone")
    elif content["head"] is None:
        lines.append("head        none: pretrained, to be fine-tuned before it can transcribe")
    else:
        decoding = "beam search with language model" if content["language_model"] else "greedy"
        symbols = [symbol for symbol in content["vocabulary"] if len(symbol) == 1]
        lines += [
            f"head        {content['head']}, {len(content['vocabulary'])} symbols: "
            + " ".join(symbols),
            f"decoding    {decoding}",
        ]
    lines.append(f"languages   {', '.join(content['languages']) or 'none given'}")
    for stage, entry in content["training"].items():
        plain = {k: v for k, v in entry.items() if not isinstance(v, dict)}
        lines.append(f"{stage:<11} {_settings(plain)}")
    lines.append(f"results     {_settings(content['results']) or 'not measured'}")
    lines.append(f"licence     {content['licence'] or 'not given'}")
    return lines


def _frames(content: Mapping[str, Any]) -> str:
    """Say how far apart frames are; a head may write several for one of the encoder."""
    encoder, output = (
        f"{1000 * content[name]:g} ms" for name in ("encoder_frame_seconds", "frame_seconds")
    )
    return f"encoder {encoder}, output {output}" if content["head"] else f"encoder {encoder}"


def _settings(entries: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {_short(value)}" for key, value in entries.items() if value is not None
    )


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
