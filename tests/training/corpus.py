"""A corpus of a few tones and noises, for tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from speechjepa.data.utterance import Utterance
from speechjepa.models.speech_encoder import SpeechEncoderConfig

SMALL = SpeechEncoderConfig(
    width=32, num_layers=2, num_heads=2, ffn_width=64, kernel_size=5, frame_rate=25
)


def make_corpus(folder: Path, number: int = 12, letters: str = "abc") -> list[Utterance]:
    """Write utterances that spell letters as tones (a = 300 Hz, b = 600 Hz, ...) in noise."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    utterances = []
    for i in range(number):
        word = "".join(generator.choice(list(letters), size=4))
        parts = []
        for letter in word:
            time = np.arange(int(0.2 * 16000)) / 16000
            tone = np.sin(2 * np.pi * 300 * 2 ** letters.index(letter) * time)
            parts += [0.3 * tone, np.zeros(int(0.1 * 16000))]
        samples = np.concatenate(parts) + generator.normal(0, 0.01, 4 * int(0.3 * 16000))
        path = folder / f"{i:03d}.wav"
        soundfile.write(path, samples.astype(np.float32), 16000)
        utterances.append(Utterance(id=path.stem, audio_path=path, text=word, language="xx"))
    return utterances
