"""Choose which recordings to transcribe: those whose sounds, together, cover what was recorded."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from speechjepa.data.utterance import Utterance
from speechjepa.errors import AudioError, ConfigError, DataError
from speechjepa.inference.model import SpeechModel
from speechjepa.inference.recognise import read_utterance

OVERHEAD_SECONDS = 0.5
"""What finding, opening and checking one more recording costs, as seconds of audio."""
SAMPLE_SECONDS = 3600.0
"""Audio that the units are found in; all of it is then heard with them."""
BATCH_SECONDS = 60.0
MAX_CLIPPED = 0.005
"""Share of the samples at full scale above which a recording is left out."""
MIN_RANGE_DB = 10.0
"""Least distance between the loud and the quiet of a recording (dB)."""
TRANSCRIBED = "transcribed already"
"""Why a recording with text is not proposed."""
LONG_ADVICE = (
    "no pauses of speech are found in them: --max-seconds N proposes longer recordings; better, "
    "transcribe stretches of a few seconds in ELAN or Praat: the .eaf or .TextGrid beside a "
    "recording is read as labels"
)
"""What to do about recordings that are too long."""


@dataclass(frozen=True, kw_only=True)
class SelectOptions:
    """What to propose."""

    minutes: float
    """How much audio (minutes)."""
    min_seconds: float = 1.0
    """Shorter recordings are left out (seconds)."""
    max_seconds: float = 15.0
    """Longer recordings are left out (seconds)."""
    include_transcribed: bool = False
    """Propose recordings that have a transcript as well, as if they had none."""
    num_units: int = 200
    """Kinds of sound told apart."""
    seed: int = 0
    """Of the search for the units."""

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise ConfigError(f"`minutes` must be more than 0, but is {self.minutes:g} instead")
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ConfigError("`min_seconds` must be at least 0 and less than `max_seconds`")
        if self.num_units < 2:
            raise ConfigError(f"`num_units` must be 2 or more, but is {self.num_units} instead")


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A recording that may be proposed."""

    utterance: Utterance
    seconds: float
    range_db: float
    """Distance between the 95th and the 10th percentile of its level (dB)."""
    sounds: Counter[tuple[int, ...]]
    """How often each unit, and each pair of units in a row, was heard."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One proposed recording, and why."""

    heard: Heard
    new_sounds: int
    """Units and pairs of units that no recording before it, and none with a transcript, has."""


@dataclass(kw_only=True)
class Selection:
    """What to transcribe, the most useful first."""

    chosen: list[Choice]
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> ids of the recordings that could not be proposed."""
    coverage: float
    """Share of all sounds, by how often they were heard, that the proposal and what is transcribed
    already have at least once."""

    @property
    def seconds(self) -> float:
        """How long the proposed recordings last together."""
        return sum(choice.heard.seconds for choice in self.chosen)


def select(
    model: SpeechModel,
    utterances: Sequence[Utterance],
    options: SelectOptions,
    *,
    progress: Callable[[int, float], None] = lambda files, seconds: None,
) -> Selection:
    """Propose recordings to transcribe.

    Frames of the encoder are grouped into units; recordings are taken greedily by how much closer
    they bring the sounds of the proposal to those of all recordings, for each second that has to
    be transcribed. Concave over modular coverage, as in Wei et al., 2014
    (https://doi.org/10.1109/ICASSP.2014.6854213), over units that nobody had to label. Recordings
    with a transcript are not proposed; their sounds and speakers count as covered.

    Args:
        model: Any model; its encoder tells the sounds apart.
        utterances: What was recorded, with or without text.
        options: How much to propose.
        progress: Told how many recordings were heard, and their seconds.

    Raises:
        DataError: What remains is shorter than `options.minutes`.
    """
    left_out: dict[str, list[str]] = {}
    usable = []
    for utterance in utterances:
        reason, found = _judge(model, utterance, options)
        if found is not None:
            usable.append(found)
        if _is_known(utterance, options):
            reason = TRANSCRIBED
        if reason:
            left_out.setdefault(reason, []).append(utterance.id)
    total = sum(seconds for utterance, seconds, _ in usable if not _is_known(utterance, options))
    if total < 60 * options.minutes:
        reasons = "; ".join(f"{reason}: {len(ids)}" for reason, ids in left_out.items())
        raise DataError(
            f"only {total / 60:.1f} minutes can be proposed, less than the {options.minutes:g} "
            f"asked for. Left out: {reasons or 'none'}."
            + (f" {LONG_ADVICE}." if _too_long(options) in left_out else "")
        )
    centres = _find_units(model, [(u, seconds) for u, seconds, _ in usable], options)
    heard = [
        Heard(utterance=utterance, seconds=seconds, range_db=range_db, sounds=sounds)
        for (utterance, seconds, range_db), sounds in _hear(model, usable, centres, progress)
    ]
    known = [item for item in heard if _is_known(item.utterance, options)]
    new = [item for item in heard if not _is_known(item.utterance, options)]
    chosen = choose(new, 60 * options.minutes, known)
    everything = sum((item.sounds for item in heard), Counter[tuple[int, ...]]())
    covered = set().union(*(item.sounds for item in [*known, *(c.heard for c in chosen)]))
    share = sum(n for sound, n in everything.items() if sound in covered) / everything.total()
    return Selection(chosen=chosen, left_out=left_out, coverage=share)


def _is_known(utterance: Utterance, options: SelectOptions) -> bool:
    return bool((utterance.text or "").strip()) and not options.include_transcribed


def choose(heard: Sequence[Heard], seconds: float, known: Sequence[Heard] = ()) -> list[Choice]:
    """Return recordings of `seconds` or a little more together, the most useful first.

    The value of a set is the sum over sounds of p log(1 + n), with p how frequent the sound is
    among everything heard and n how often the set and `known`, which is transcribed already, have
    it; seconds of each speaker count alike. Ties go to the id.
    """
    everything = sum((item.sounds for item in [*heard, *known]), Counter[tuple[int, ...]]())
    # The square root lies between matching the corpus (p itself) and counting all sounds alike.
    weights = {sound: math.sqrt(count) for sound, count in everything.items()}
    scale = sum(weights.values())
    counts = sum((item.sounds for item in known), Counter[tuple[int, ...]]())
    spoken = _seconds_by_speaker(known)
    total = sum(item.seconds for item in [*heard, *known])
    shares = {n: s / total for n, s in _seconds_by_speaker([*heard, *known]).items()}

    def gain(item: Heard) -> float:
        found = sum(
            weights[sound] * math.log((1 + counts[sound] + count) / (1 + counts[sound]))
            for sound, count in item.sounds.items()
        )
        value = found / scale
        speaker = item.utterance.speaker
        if speaker and len(shares) > 1:
            before = 1 + spoken.get(speaker, 0.0)
            value += shares[speaker] * math.log((before + item.seconds) / before)
        return value / (item.seconds + OVERHEAD_SECONDS)

    # Lazy greedy search: a gain only falls while the set grows, so what was first and still is
    # first when computed anew is the best.
    queue = [(-gain(item), item.utterance.id, index, 0) for index, item in enumerate(heard)]
    heapq.heapify(queue)
    chosen: list[Choice] = []
    length = 0.0
    while queue and length < seconds:
        _, name, index, age = heapq.heappop(queue)
        item = heard[index]
        if age < len(chosen):
            heapq.heappush(queue, (-gain(item), name, index, len(chosen)))
            continue
        new = sum(1 for sound in item.sounds if not counts[sound])
        chosen.append(Choice(heard=item, new_sounds=new))
        counts.update(item.sounds)
        if speaker := item.utterance.speaker:
            spoken[speaker] = spoken.get(speaker, 0.0) + item.seconds
        length += item.seconds
    return chosen


def _seconds_by_speaker(heard: Sequence[Heard]) -> dict[str, float]:
    spoken: dict[str, float] = {}
    for item in heard:
        if speaker := item.utterance.speaker:
            spoken[speaker] = spoken.get(speaker, 0.0) + item.seconds
    return spoken


def _judge(
    model: SpeechModel, utterance: Utterance, options: SelectOptions
) -> tuple[str, tuple[Utterance, float, float] | None]:
    """Return why a recording cannot be proposed; or "", and it with its length and range."""
    if utterance.duration is not None and utterance.duration > options.max_seconds:
        return _too_long(options), None
    try:
        waveform = read_utterance(utterance, model.sample_rate)
    except AudioError:
        return "cannot be read", None
    seconds = len(waveform) / model.sample_rate
    if seconds > options.max_seconds:
        return _too_long(options), None
    if seconds < max(options.min_seconds, 2 * model.hop / model.sample_rate):
        return f"shorter than {options.min_seconds:g} s", None
    if float((np.abs(waveform) >= 0.999).mean()) > MAX_CLIPPED:
        return "clipped", None
    range_db = level_range(waveform, model.sample_rate)
    if range_db < MIN_RANGE_DB:
        return f"speech less than {MIN_RANGE_DB:g} dB above the noise, or silent", None
    return "", (utterance, seconds, range_db)


def _too_long(options: SelectOptions) -> str:
    return f"longer than {options.max_seconds:g} s"


def level_range(waveform: NDArray[np.float32], sample_rate: int) -> float:
    """Return how far the loud parts of speech (S,) lie above the quiet ones (dB).

    From the 10th to the 95th percentile of the level of stretches of 25 ms; 0 for silence.
    """
    size = sample_rate // 40
    frames = waveform[: len(waveform) // size * size].reshape(-1, size)
    if not len(frames):
        return 0.0
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    low, high = np.percentile(power, [10, 95])
    return 0.0 if high < 1e-10 else float(10 * np.log10(high / max(low, 1e-10)))


def _find_units(
    model: SpeechModel, recordings: Sequence[tuple[Utterance, float]], options: SelectOptions
) -> torch.Tensor:
    """Return (K, D) centres of the encoder's frames in some of the recordings."""
    from sklearn.cluster import MiniBatchKMeans

    order = np.random.default_rng(options.seed).permutation(len(recordings))
    sample, seconds = [], 0.0
    for index in order:
        if seconds >= SAMPLE_SECONDS:
            break
        sample.append(recordings[index])
        seconds += recordings[index][1]
    frames = np.concatenate([rows.numpy() for _, rows in _encode(model, sample)])
    clusters = MiniBatchKMeans(
        min(options.num_units, len(frames)), batch_size=4096, n_init=1, random_state=options.seed
    )
    return torch.from_numpy(clusters.fit(frames).cluster_centers_).float()


def _encode(
    model: SpeechModel, recordings: Sequence[tuple[Utterance, float]]
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the index of each recording and its frames (T, D), normalised, in batches by length."""
    order = sorted(range(len(recordings)), key=lambda index: recordings[index][1])
    while order:
        longest = recordings[order[0]][1]
        count = 0
        for index in order:
            longest = max(longest, recordings[index][1])
            if count and longest * (count + 1) > BATCH_SECONDS:
                break
            count += 1
        batch, order = order[:count], order[count:]
        waves = [
            torch.from_numpy(read_utterance(recordings[index][0], model.sample_rate))
            for index in batch
        ]
        padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        output = model.encode(
            padded, torch.tensor([len(wave) for wave in waves]), return_layers=True
        )
        assert output.layers is not None
        # Two thirds up: below lies the voice, at the top the task of training.
        layer = output.layers[round(2 / 3 * (len(output.layers) - 1))]
        layer = torch.nn.functional.layer_norm(layer.float(), layer.shape[-1:])
        for index, rows, length in zip(batch, layer.cpu(), output.lengths.tolist(), strict=True):
            yield index, rows[:length]


def _hear(
    model: SpeechModel,
    usable: Sequence[tuple[Utterance, float, float]],
    centres: torch.Tensor,
    progress: Callable[[int, float], None],
) -> Iterator[tuple[tuple[Utterance, float, float], Counter[tuple[int, ...]]]]:
    recordings = [(utterance, seconds) for utterance, seconds, _ in usable]
    for index, rows in _encode(model, recordings):
        units = torch.cdist(rows, centres).argmin(dim=1).numpy()
        yield usable[index], sounds_of(units)
        progress(1, usable[index][1])


def sounds_of(units: NDArray[np.int64]) -> Counter[tuple[int, ...]]:
    """Count units (T,) and pairs of units in a row, a unit that lasts counting once."""
    kept = units[np.flatnonzero(np.diff(units, prepend=-1))].tolist()
    counted = Counter[tuple[int, ...]]((unit,) for unit in kept)
    counted.update(zip(kept, kept[1:], strict=False))
    return counted
