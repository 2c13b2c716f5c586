"""Fuzz the audio decoder, and the HTTP upload, for a bounded time.

    python tools/fuzz.py --seconds 60
    python tools/fuzz.py --seconds 60 --http-seconds 60
    python tools/fuzz.py --seconds 0 --http-seconds 60 --model M -o fuzz.json

Small valid files in every container are damaged at random (bits, numbers in headers, missing and
doubled pieces, parts of other files) and decoded in a process of their own. A file may be decoded,
or refused with a SpeechJepaError. All else is a finding: another exception, a crash of the process,
more than MAX_SECONDS or MAX_BYTES of memory for a few kilobytes, samples outside [-1, 1]. With
--http-seconds damaged files, and damaged requests, go to a server on this machine too; its answers
may be 200 or 4xx, and it must live; a model that translates is asked to translate them into speech.
Files that were findings are kept in --keep. Exit status 1 if there was any. Writes
results/fuzz.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import queue
import random
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RATE = 16000
MAX_SECONDS = 20.0
MAX_BYTES = 6 << 30
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds(folder: Path) -> dict[str, bytes]:
    """Return small valid files, by their suffix or a name that ends in it."""
    import soundfile

    time_axis = np.arange(RATE // 2) / RATE
    wave = (0.3 * np.sin(2 * np.pi * 220 * time_axis)).astype(np.float32)
    made: dict[str, bytes] = {}
    for name, kind, subtype in (
        *(
            ("wav", "WAV", "PCM_16"),
            ("float.wav", "WAV", "FLOAT"),
            ("adpcm.wav", "WAV", "IMA_ADPCM"),
        ),
        *(("flac", "FLAC", "PCM_16"), ("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS")),
        *(("mp3", "MP3", "MPEG_LAYER_III"), ("aiff", "AIFF", "PCM_16"), ("w64", "W64", "PCM_16")),
        *(("au", "AU", "PCM_16"), ("caf", "CAF", "PCM_16"), ("sph", "NIST", "PCM_16")),
    ):
        held = io.BytesIO()
        soundfile.write(held, wave, RATE, format=kind, subtype=subtype)
        made[name] = held.getvalue()
    for suffix, codec in (("m4a", "aac"), ("webm", "libopus"), ("mkv", "flac"), ("aac", "aac")):
        made[suffix] = _by_ffmpeg(folder / f"seed.{suffix}", codec, wave)
    return made


def _by_ffmpeg(path: Path, codec: str, wave: np.ndarray) -> bytes:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=48000 if codec == "libopus" else RATE)
        stream.layout = "mono"
        sampler = av.AudioResampler(stream.codec_context.format.name, "mono", stream.rate)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for part in [*sampler.resample(frame), *sampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path.read_bytes()


def damage(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return a damaged copy: one to six changes, mostly where headers are."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        if not data:
            break
        in_header = rng.random() < 0.6
        at = rng.randrange(min(len(data), 256) if in_header else len(data))
        length = min(len(data) - at, int(2 ** rng.uniform(0, 10)))
        kind = rng.randrange(8)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + length] = rng.randbytes(length)
        elif kind in (2, 3):
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(INTERESTING) & (256**width - 1)
            data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 4:
            del data[at : at + length]
        elif kind == 5:
            data[at:at] = data[at : at + length] * rng.randint(1, 4)
        elif kind == 6:
            del data[at:]
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[at : at + length] = other[start : start + length]
    return bytes(data)


# The process that decodes -----------------------------------------------------------------------


def decode_all() -> None:
    """Decode the files named on standard input, and say on a line what became of each."""
    sys.path.insert(0, str(ROOT))
    from speechjepa.audio.files import probe_audio, read_audio, stream_audio
    from speechjepa.errors import SpeechJepaError

    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def stream(path: str) -> np.ndarray:
        return np.concatenate(list(stream_audio(path, block_seconds=1.0)))

    def stretch(path: str) -> np.ndarray:
        return read_audio(path, start=0.1, duration=0.2)

    for line in sys.stdin:
        path = line.rstrip("\n")
        told = []
        for way in (stream, stretch, probe_audio):
            try:
                found = way(path)
                if isinstance(found, np.ndarray) and not (np.abs(found) <= 1.0).all():
                    told.append(f"{way.__name__}: samples outside [-1, 1]")
                else:
                    told.append("decoded")
            except SpeechJepaError:
                told.append("refused")
            except Exception as error:  # what is looked for
                told.append(f"{way.__name__}: {type(error).__name__}: {error}")
        print(json.dumps(told), flush=True)


def _listen(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


class Decoder:
    """A process that decodes; a new one where the last has died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, path: Path) -> list[str]:
        """Return what became of a file, each way of reading it."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--decode"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self.lines: queue.Queue[str] = queue.Queue()
            # The listener of a process that died must not speak into the queue of the next.
            heard = (self.process, self.lines)
            threading.Thread(target=_listen, args=heard, daemon=True).start()
            limit = MAX_SECONDS + 60  # and its imports
        else:
            limit = MAX_SECONDS
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{path}\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=limit)
        except queue.Empty:
            self.close()
            return [f"took more than {MAX_SECONDS:.0f} s"]
        except OSError:
            line = ""
        if not line:
            status = self.process.wait()
            self.process = None
            return [f"the process died with status {status}"]
        return list(json.loads(line))

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def fuzz_decoder(seconds: float, rng: random.Random, keep: Path) -> dict[str, Any]:
    """Decode damaged files for so long; return counts and findings."""
    decoder, counts = Decoder(), Counter[str]()
    findings: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = seeds(folder)
        for name, content in made.items():
            path = folder / f"valid-{name}"
            path.write_bytes(content)
            if decoder.ask(path) != ["decoded"] * 3:
                raise SystemExit(f"a valid {name} file is not decoded: the tool is broken")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            name, content = rng.choice(list(made.items()))
            damaged = damage(content, list(made.values()), rng)
            path = folder / f"damaged.{name}"
            path.write_bytes(damaged)
            told = decoder.ask(path)
            counts["files"] += 1
            counts[f"{name} files"] += 1
            for one in told:
                if one in ("decoded", "refused"):
                    counts[one] += 1
                elif one not in findings:
                    findings[one] = _keep(damaged, keep, path.name)
                    print(f"finding: {one} ({findings[one]})", flush=True)
    decoder.close()
    return {"counts": dict(sorted(counts.items())), "findings": sorted(findings)}


def _keep(content: bytes, keep: Path, name: str) -> str:
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{len(list(keep.iterdir())):03d}-{name}"
    path.write_bytes(content)
    return str(path)


# The server -------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(model: str, keep: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve a model on this machine; yield its address and process."""
    import httpx

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "speechjepa", "serve", model, "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    keep.mkdir(parents=True, exist_ok=True)
    with open(keep / "server.log", "w+b") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(240):
                with contextlib.suppress(httpx.HTTPError):
                    httpx.get(f"{address}/health", timeout=5.0)
                    break
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"the server did not start: {log.read().decode()}")
                time.sleep(0.5)
            yield address, process
        finally:
            process.terminate()
            process.wait(30)


def multipart(name: str, content: bytes, field: bytes = b"n") -> tuple[bytes, bytes]:
    """Return the body of an upload, with "wav" in one field besides, and its content type."""
    boundary = b"a1b2c3d4e5f6"
    body = b"".join(
        (
            *(b"--", boundary, b'\r\nContent-Disposition: form-data; name="', field),
            b'"\r\n\r\nwav\r\n',
            *(b"--", boundary, b'\r\nContent-Disposition: form-data; name="file"; filename="'),
            *(name.encode(), b'"\r\nContent-Type: audio/wav\r\n\r\n', content, b"\r\n"),
            *(b"--", boundary, b"--\r\n"),
        )
    )
    return body, b"multipart/form-data; boundary=" + boundary


def fuzz_upload(seconds: float, rng: random.Random, keep: Path, model: str) -> dict[str, Any]:
    """Send damaged files and damaged requests for so long; return counts and findings."""
    import httpx

    counts, findings = Counter[str](), set[str]()
    with tempfile.TemporaryDirectory() as temporary, server(model, keep) as (address, process):
        made = seeds(Path(temporary))
        end = time.monotonic() + seconds
        with httpx.Client(base_url=address, timeout=120.0) as client:
            translates = not client.get("/health").json()["transcribes"]
            path = f"/v1/audio/{'translations' if translates else 'transcriptions'}"
            field = b"response_format" if translates else b"n"
            while time.monotonic() < end and process.poll() is None:
                name, content = rng.choice(list(made.items()))
                body, content_type = multipart(f"a.{name}", content, field)
                if rng.random() < 0.5:
                    body, content_type = multipart(
                        f"a.{name}", damage(content, list(made.values()), rng), field
                    )
                else:
                    body = damage(body, list(made.values()), rng)
                    if rng.random() < 0.2:
                        content_type = damage(content_type, [content], rng)
                        content_type = bytes(b for b in content_type if 31 < b < 127).strip()
                found = _send(client, path, body, content_type)
                counts["requests"] += 1
                counts[found] += 1
                if not (found == "200" or found.startswith("4")) and found not in findings:
                    findings.add(found)
                    print(f"finding: {found} ({_keep(body, keep, 'body')})", flush=True)
            lives = process.poll() is None and _send_valid(client, path, made["wav"])
        if not lives:
            findings.add("the server did not live to answer a valid request")
    return {"counts": dict(sorted(counts.items())), "findings": sorted(findings)}


def _send(client: Any, path: str, body: bytes, content_type: bytes) -> str:
    import httpx

    try:
        answer = client.post(path, content=body, headers={b"content-type": content_type})
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}"
    return str(answer.status_code)


def _send_valid(client: Any, path: str, content: bytes) -> bool:
    return _send(client, path, *multipart("a.wav", content)) == "200"


def main() -> int:
    """Fuzz, print, write; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for the decoder")
    parser.add_argument("--http-seconds", type=float, default=0.0, help="for the server")
    parser.add_argument("--model", default="shipped", help="what is served")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "fuzz.json")
    parser.add_argument("--decode", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.decode:
        decode_all()
        return 0
    from speechjepa.workflow.record import make_record, write_json

    found = {"decoder": fuzz_decoder(args.seconds, random.Random(args.seed), args.keep)}
    if args.http_seconds > 0:
        found["upload"] = fuzz_upload(
            args.http_seconds, random.Random(args.seed), args.keep, args.model
        )
    total = sum(len(one["findings"]) for one in found.values())
    print(json.dumps(found, indent=1))
    http = f" --http-seconds {args.http_seconds:g}" if args.http_seconds else ""
    record = make_record(
        what="fuzzing: findings (crashes, hangs, exceptions that no one expects, answers 5xx)",
        figure=total,
        unit="findings",
        command=f"python tools/fuzz.py --seconds {args.seconds:g}{http}",
        seed=args.seed,
        **found,
    )
    write_json(args.output, record)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
