"""Buzzing syllables with moving formants: no words, but speech to a detector of it."""

import numpy as np

RATE = 16000


def say_syllables(seconds, seed=0):
    """Return about `seconds` of syllables, consonant-like noise and vowel, without a pause."""
    random = np.random.default_rng(seed)
    pieces, length = [], 0
    while length < seconds * RATE:
        hiss = random.standard_normal(round(0.05 * RATE)) * 0.03
        time = np.arange(round(random.uniform(0.12, 0.2) * RATE)) / RATE
        share = time / time[-1]
        pitch = 110 + 25 * np.sin(2 * np.pi * 1.1 * (length / RATE + time))
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        formants = [(random.uniform(300, 800), random.uniform(300, 800), 80, 1.0)]
        formants += [(random.uniform(900, 2300), random.uniform(900, 2300), 120, 0.5)]
        formants += [(2600.0, 2800.0, 180, 0.25)]
        vowel = np.zeros(len(time))
        for k in range(1, 45):
            gain = sum(
                weight / (1 + ((k * pitch - (begin + (end - begin) * share)) / width) ** 2)
                for begin, end, width, weight in formants
            )
            vowel += gain * np.sin(k * phase) / k**0.5
        pieces += [hiss, 0.15 * vowel * np.sin(np.pi * share) ** 0.5]
        length += len(hiss) + len(vowel)
    return np.concatenate(pieces).astype(np.float32)
