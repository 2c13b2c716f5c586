"""How many answers a server loses, and how long they take, with many clients at once.

    python tools/benchmark_server.py --clients 50 -o results/server.json

The server is a process of its own (`speechjepa serve`); the clients are threads of this one, on the
same cores. All send at once, each one recording of synthetic speech after the other. An answer is
lost if it is no text, or not the text that one client alone gets.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import httpx
import soundfile

from speechjepa.data.synthetic.espeak import synthesise
from speechjepa.workflow.record import make_record, write_json

SENTENCES = (
    "The boats went out at four in the morning.",
    "My grandmother kept the seeds in a clay pot.",
    "Nobody had crossed the river since the rain.",
    "He counted seven goats and two small dogs, and then he counted again.",
    "They sing it when the first house of the year is built.",
)
START_SECONDS = 120.0


def main() -> None:
    """Measure, and write one JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="shipped", help="a fine-tuned bundle, or a run")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=4, help="of each client")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    recordings = [speak(text) for text in SENTENCES]
    with served(args.model) as url:
        alone = []
        expected = []
        for recording, _ in recordings:
            seconds, text = ask(url, recording)
            alone.append(seconds)
            expected.append(text)
        started = perf_counter()
        answers = ask_at_once(url, [audio for audio, _ in recordings], args.clients, args.requests)
        wall_seconds = perf_counter() - started
    times = sorted(seconds for seconds, _, _ in answers)
    lost = sum(text is None or text != expected[index] for _, text, index in answers)
    audio_seconds = sum(recordings[index][1] for _, _, index in answers)
    record = make_record(
        what=f"answers lost with {args.clients} clients at once",
        figure=lost,
        unit="answers",
        command=f"python tools/benchmark_server.py --model {args.model} --clients {args.clients} "
        f"--requests {args.requests}",
        seed=0,
        clients=args.clients,
        requests=len(answers),
        lost=lost,
        median_s=round(statistics.median(times), 3),
        p95_s=round(percentile(times, 95), 3),
        alone_s=round(statistics.median(alone), 3),
        audio_seconds_per_second=round(audio_seconds / wall_seconds, 2),
        recording_s=round(audio_seconds / len(answers), 2),
    )
    for key in ("clients", "requests", "lost", "median_s", "p95_s", "audio_seconds_per_second"):
        print(key, record[key])
    if args.output is not None:
        write_json(args.output, record)


def speak(text: str) -> tuple[bytes, float]:
    """Return a text as the bytes of a wav file, and its length (seconds)."""
    speech = synthesise(text, "en-us")
    buffer = io.BytesIO()
    soundfile.write(buffer, speech.waveform, speech.sample_rate, "PCM_16", format="WAV")
    return buffer.getvalue(), len(speech.waveform) / speech.sample_rate


@contextmanager
def served(model: str) -> Iterator[str]:
    """Run `speechjepa serve` for the length of a block; yield its address."""
    command = [sys.executable, "-m", "speechjepa", "serve", model, "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"http://[\d.:]+", line):
                break
        else:
            raise SystemExit("the server did not start")
        url = found[0]
        threading.Thread(target=process.stderr.read, daemon=True).start()
        wait_until_it_answers(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def wait_until_it_answers(url: str) -> None:
    """Return when the server is ready; `TimeoutError` if it never is."""
    end = perf_counter() + START_SECONDS
    while True:
        try:
            httpx.get(f"{url}/health").raise_for_status()
            return
        except httpx.TransportError:
            if perf_counter() > end:
                raise


def ask(url: str, recording: bytes) -> tuple[float, str | None]:
    """Return how long an answer took (seconds), and its text if it came."""
    started = perf_counter()
    try:
        answer = httpx.post(
            f"{url}/v1/audio/transcriptions",
            files={"file": ("a.wav", recording)},
            timeout=600.0,
        )
        text = answer.json()["text"] if answer.status_code == 200 else None
    except httpx.TransportError:
        text = None
    return perf_counter() - started, text


def ask_at_once(
    url: str, recordings: Sequence[bytes], clients: int, requests: int
) -> list[tuple[float, str | None, int]]:
    """Return (seconds, text, index of the recording) of every answer to every client."""
    start = threading.Barrier(clients)

    def client(number: int) -> list[tuple[float, str | None, int]]:
        start.wait()
        found = []
        for turn in range(requests):
            index = (number + turn) % len(recordings)
            found.append((*ask(url, recordings[index]), index))
        return found

    with ThreadPoolExecutor(clients) as pool:
        return [answer for answers in pool.map(client, range(clients)) for answer in answers]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest number that this share of the numbers does not exceed."""
    return ordered[max(0, -(-round(percent * len(ordered)) // 100) - 1)]


if __name__ == "__main__":
    main()
