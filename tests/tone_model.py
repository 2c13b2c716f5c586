"""A model that hears tones: each character is a frequency, silence is blank.

Its logits are a function of the samples of each frame alone, so what was said is known exactly.
"""

import numpy as np
import soundfile
import torch

from speechjepa.text.normalize import TextConfig
from speechjepa.text.vocabulary import Vocabulary

RATE = 16000
HOP = 320
VOCABULARY = Vocabulary(["<blank>", "|", *"abcdefgh", "?"])


def synthesize(text, *, rate=RATE):
    """Say a text: 4 frames of tone a character, 2 of silence after it; "_" is 0.1 s of silence."""
    pieces = []
    for character in text:
        if character == "_":
            pieces.append(np.zeros(rate // 10))
            continue
        symbol = VOCABULARY.symbols.index("|" if character == " " else character)
        time = np.arange(4 * HOP * rate // RATE) / rate
        tone = 0.5 * np.sin(2 * np.pi * (symbol * 500) * time)
        pieces += [tone, np.zeros(2 * HOP * rate // RATE)]
    return np.concatenate(pieces).astype(np.float32) if pieces else np.zeros(0, np.float32)


def write(path, waveform, rate=RATE):
    soundfile.write(path, waveform, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


class ToneModel:
    """See the module.

    Args:
        confused_frames: This many frames at both edges of a window are heard as "?", as frames
            without context may be.
        frames_per_hop: Logit frames per encoder frame.
    """

    sample_rate = RATE
    vocabulary = VOCABULARY
    languages = ("xx",)
    device = torch.device("cpu")
    beam_search = None
    utterance_seconds = None
    text_config = TextConfig()
    calibration: dict = {}  # noqa: RUF012 - never changed
    computation = None
    vad = "none"  # tones are no speech to a detector

    def __init__(self, confused_frames=0, frames_per_hop=1):
        self.confused_frames = confused_frames
        self.hop = HOP * frames_per_hop
        self.frame_seconds = HOP / RATE
        self.frames_per_hop = frames_per_hop
        self.window_lengths = []

    def logits(self, waveform, lengths):
        self.window_lengths += lengths.tolist()
        num_frames = lengths // self.hop * self.frames_per_hop
        logits = torch.zeros(len(waveform), waveform.shape[1] // HOP, len(VOCABULARY))
        for row, (count, samples) in enumerate(zip(num_frames.tolist(), waveform, strict=True)):
            if count == 0:
                continue
            frames = samples[: count * HOP].reshape(count, HOP)
            spectrum = torch.fft.rfft(frames).abs()  # bins of 50 Hz
            symbols = (spectrum.argmax(dim=-1) / 10).round().long()
            symbols[spectrum.amax(dim=-1) < 20] = 0
            if self.confused_frames:
                symbols[: self.confused_frames] = len(VOCABULARY) - 1
                symbols[-self.confused_frames :] = len(VOCABULARY) - 1
            logits[row, torch.arange(count), symbols.clamp(max=len(VOCABULARY) - 1)] = 10.0
        return logits, num_frames
