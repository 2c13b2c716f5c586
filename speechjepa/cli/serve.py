"""`speechjepa serve`: a model behind HTTP, a WebSocket and a page."""

from __future__ import annotations

import argparse

EPILOG = """\
POST /v1/audio/transcriptions   as the OpenAI API: file, model, language, response_format (json,
                                text, srt, vtt, verbose_json; also tsv, eaf, TextGrid),
                                timestamp_granularities[], stream, temperature (not used), prompt
                                (not used); and hotwords, "a,b"
POST /v1/audio/translations     where a model translates: the same fields; response_format also
                                wav, flac, opus (the translation spoken), verbose_json (units,
                                times and text) or zip (wav and json); head=retrieval
WS   /v1/audio/stream           16-bit samples in, words out (?sample_rate=48000&language=sw);
                                with ?task=translate speech out, and its units and text as json
GET  /                          the page: drop a file or speak, see and hear what it says
GET  /v1/models /health /metrics

  speechjepa serve runs/quickstart --port 8000
  curl -F file=@interview.wav -F response_format=srt localhost:8000/v1/audio/transcriptions

  speechjepa serve runs/s2st-phrases-es-en
  curl -F file=@dates.wav -F response_format=wav localhost:8000/v1/audio/translations -o en.wav

It answers this computer alone unless --host says otherwise, and then everyone who can reach it:
there is no password, so put a proxy that asks for one (and speaks https, without which browsers
give no microphone to other computers) in front of it. While they are transcribed, recordings lie in
the folder for temporary files ($TMPDIR).
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `serve` command."""
    parser = subparsers.add_parser(
        "serve",
        help="a page and an OpenAI-like HTTP interface that transcribe and translate",
        description="Serve a model to browsers and programs until Ctrl-C.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a fine-tuned bundle or one that translates, or its run")
    add("--translator", metavar="M", help="a bundle that translates, beside one that transcribes")
    add("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this computer alone)")
    add("--port", type=int, default=8000, help="(8000; 0 = any that is free)")
    add("--name", help="what clients call the model (its folder's name); many say whisper-1")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (cuda if there)")
    add(
        "--compute_type",
        choices=("auto", "float32", "bfloat16", "int8"),
        default="auto",
        help="number format (auto: the fastest by trial, of models of 20 M parameters or more)",
    )
    add("--language", metavar="CODE", help="of requests that name none; auto = as heard")
    add("--decoder", choices=("auto", "greedy", "beam"), default="auto", help="as of transcribe")
    add("--lm", metavar="FILE.arpa", help="another language model, for recordings")
    add = parser.add_argument_group("limits").add_argument
    add("--max_upload_mb", type=float, default=500.0, metavar="MB", help="of a request (500)")
    add("--max_minutes", type=float, default=240.0, metavar="MIN", help="of a recording (240)")
    add("--workers", type=int, metavar="N", help="recordings at once (one a core, at most 4)")
    add("--max_waiting", type=int, default=64, metavar="N", help="that wait; others get 503 (64)")
    add("--max_streams", type=int, default=4, metavar="N", help="live connections at once (4)")
    add(
        "--allow_host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which the server may be called besides localhost; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until stopped; return 0."""
    from speechjepa.inference.transcribe import TranscribeConfig
    from speechjepa.serving.run import serve
    from speechjepa.serving.settings import ServingConfig

    workers = {} if args.workers is None else {"workers": args.workers}
    config = ServingConfig(
        max_upload_mb=args.max_upload_mb,
        max_minutes=args.max_minutes,
        max_waiting=args.max_waiting,
        max_streams=args.max_streams,
        allowed_hosts=tuple(args.allow_host),
        transcribe=TranscribeConfig(
            language=args.language, decoder=args.decoder, language_model=args.lm
        ),
        **workers,
    )
    serve(
        args.model,
        name=args.name,
        device=args.device,
        compute_type=args.compute_type,
        host=args.host,
        port=args.port,
        config=config,
        translator=args.translator,
    )
    return 0
