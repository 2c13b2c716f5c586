"""What the data doctor says about recordings: bad files, doubtful sound, copies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from speechjepa.data.check_audio import Heard
from speechjepa.data.findings import Finding, Place, number

END_TOLERANCE_SECONDS = 0.1
"""Manifests round their times; an utterance may end this long after its file."""
NO_SAMPLES = "holds no audio samples"
"""How the audio reader begins the reason for a file that is sound but empty."""


def audio_findings(
    heard: Sequence[Heard],
    *,
    min_seconds: float,
    max_seconds: float,
    silence_dbfs: float,
    max_clipped_percent: float,
) -> list[Finding]:
    """Return what is wrong with single recordings.

    Args:
        heard: Every utterance with its measurement.
        min_seconds: Shorter recordings are too short to learn from.
        max_seconds: Longer ones are too long to train on whole.
        silence_dbfs: Recordings whose loudest 0.1 s stays below this are silent.
        max_clipped_percent: Samples at full scale that are still acceptable (percent).
    """
    sounding = [h for h in heard if h.sound.seconds and not h.sound.problem]
    decoded = [h for h in sounding if h.sound.decoded]
    findings = [
        *_unreadable_findings(heard),
        *_loudness_findings(decoded, silence_dbfs, max_clipped_percent),
        *_length_findings(sounding, min_seconds, max_seconds),
    ]
    return [finding for finding in findings if finding.places]


def is_empty(heard: Heard) -> bool:
    """Say whether a file could be opened but has no sound in the stretch of the utterance."""
    if heard.sound.problem:
        return heard.sound.problem.startswith(NO_SAMPLES)
    return not heard.sound.seconds


def _unreadable_findings(heard: Sequence[Heard]) -> list[Finding]:
    unreadable = [h.place(h.sound.problem) for h in heard if h.sound.problem and not is_empty(h)]
    empty = [
        h.place("starts after the end of its file" if h.sound.missing_seconds else "")
        for h in heard
        if is_empty(h)
    ]
    return [
        Finding(
            code="unreadable_audio",
            severity="warning",
            title=f"{number(len(unreadable), 'recording')} cannot be read",
            meaning="Training leaves them out and goes on.",
            advice="Copy the files again from the original, or convert them to WAV or FLAC.",
            places=tuple(unreadable),
        ),
        Finding(
            code="empty_audio",
            severity="warning",
            title=f"{number(len(empty), 'recording')} without any sound in the file",
            meaning="There is nothing to learn from; training leaves them out.",
            advice="Record again, or take the lines out of the list. If start times are given, "
            "check that they are in seconds.",
            places=tuple(empty),
        ),
    ]


def _loudness_findings(
    decoded: Sequence[Heard], silence_dbfs: float, max_clipped_percent: float
) -> list[Finding]:
    stretches = Counter(h.utterance.audio_path for h in decoded)
    silent = [
        h.place(
            f"loudest moment at {h.sound.loudest_dbfs:.0f} dB"
            if np.isfinite(h.sound.loudest_dbfs)
            else "nothing but zeros"
        )
        for h in decoded
        if h.sound.loudest_dbfs < silence_dbfs
        # Between the transcribed stretches of a recording it may well be silent.
        and (h.utterance.text is not None or stretches[h.utterance.audio_path] == 1)
    ]
    clipped = sorted(
        (h for h in decoded if h.sound.clipped_share * 100 > max_clipped_percent),
        key=lambda h: -h.sound.clipped_share,
    )
    return [
        Finding(
            code="silent_audio",
            severity="warning",
            title=f"{number(len(silent), 'recording')} silent throughout",
            meaning=f"Nothing in them is louder than {silence_dbfs:g} dB below full scale. With a "
            "transcript, they teach the model to invent words.",
            advice="Listen to one. If it is truly silent, take it out; if it is only faint, make "
            "it louder.",
            places=tuple(silent),
        ),
        Finding(
            code="clipped_audio",
            severity="warning",
            title=f"{number(len(clipped), 'recording')} clipped (too loud for the recorder)",
            meaning=f"More than {max_clipped_percent:g} % of the sound wave is cut off at the top, "
            "which is heard as crackling. Speech recognition gets a little worse on these.",
            advice="Nothing can restore what was cut off. Use the originals if these are copies "
            "that were made louder, and record the next ones with less gain.",
            places=tuple(h.place(f"{h.sound.clipped_share:.1%} of the samples") for h in clipped),
        ),
    ]


def _length_findings(
    sounding: Sequence[Heard], min_seconds: float, max_seconds: float
) -> list[Finding]:
    beyond = [
        h.place(f"{h.sound.missing_seconds:.2f} s missing")
        for h in sounding
        if h.sound.missing_seconds > END_TOLERANCE_SECONDS
    ]
    short = [h.place(f"{h.sound.seconds:.3f} s") for h in sounding if h.sound.seconds < min_seconds]
    long = [
        h.place(f"{h.sound.seconds:.1f} s")
        for h in sounding
        if h.sound.seconds > max_seconds and h.utterance.text is not None
    ]
    return [
        Finding(
            code="audio_ends_early",
            severity="warning",
            title=f"{number(len(beyond), 'recording')} shorter than the list says",
            meaning="The end of the file comes before the end of the utterance, so the last words "
            "of the transcript may not be in the sound.",
            advice="Check the start and duration columns (seconds), and that the copy is complete.",
            places=tuple(beyond),
        ),
        Finding(
            code="too_short",
            severity="warning",
            title=f"{number(len(short), 'recording')} shorter than {min_seconds:g} s",
            meaning="Too short to hold a word; usually a slip of the button or a wrong cut.",
            advice="Listen to one, then take them out or correct start and duration.",
            places=tuple(short),
        ),
        Finding(
            code="too_long",
            severity="warning",
            title=f"{number(len(long), 'recording')} longer than {max_seconds:g} s with one "
            "transcript",
            meaning="They need much memory, and the model learns slowly which word is where; of "
            "more than 120 s they are not learnt from.",
            advice="Mark the sentences in ELAN or Praat, and keep that file beside the recording.",
            places=tuple(long),
        ),
    ]


def duplicate_findings(heard: Sequence[Heard], *, pool_splits: frozenset[str]) -> list[Finding]:
    """Return audio and ids that come more than once, and audio that two splits share.

    Args:
        heard: Every utterance with its measurement.
        pool_splits: Splits of unlabelled audio that may repeat what other splits hold.
    """
    by_sound: dict[str, list[Heard]] = defaultdict(list)
    by_id: dict[tuple[str, str], list[Heard]] = defaultdict(list)
    for h in heard:
        if h.sound.digest and h.sound.seconds and np.isfinite(h.sound.loudest_dbfs):
            by_sound[h.sound.digest].append(h)
        by_id[h.split, h.utterance.id].append(h)

    repeated: list[Place] = []
    contradicting: list[Place] = []
    shared: list[Place] = []
    for same in by_sound.values():
        by_split: dict[str, list[Heard]] = defaultdict(list)
        for h in same:
            by_split[h.split].append(h)
        for group in by_split.values():
            texts = {h.utterance.text for h in group if h.utterance.text is not None}
            for h in group[1:]:
                first = group[0].place()
                same_as = f"same sound as {first.id} ({first.source})"
                if len(texts) > 1:
                    contradicting.append(h.place(f'{same_as}; here "{h.utterance.text}"'))
                else:
                    repeated.append(h.place(same_as))
        for one, other in combinations([s for s in by_split if s not in pool_splits], 2):
            first = by_split[one][0].place()
            shared += [
                h.place(f"same sound as {first.id} in {one} ({first.source})")
                for h in by_split[other]
            ]
    ids = [
        h.place(f"first used in {group[0].place().source}")
        for group in by_id.values()
        for h in group[1:]
    ]
    return _duplicates(ids, shared, contradicting, repeated)


def _duplicates(
    ids: list[Place], shared: list[Place], contradicting: list[Place], repeated: list[Place]
) -> list[Finding]:
    findings = [
        Finding(
            code="duplicate_id",
            severity="error",
            title=f"{number(len(ids), 'id')} used a second time",
            meaning="Label subsets and results refer to recordings by id, so two recordings of a "
            "split must not have the same one.",
            advice="Rename one of each pair, for example by putting the speaker or the session "
            "in front.",
            places=tuple(ids),
        ),
        Finding(
            code="audio_shared_between_splits",
            severity="warning",
            title=f"{number(len(shared), 'recording')} also in another split",
            meaning="The model is tested on what it was trained on, so the measured error is "
            "better than the truth.",
            advice="Take them out of one of the two splits.",
            places=tuple(shared),
        ),
        Finding(
            code="contradicting_duplicates",
            severity="warning",
            title=f"{number(len(contradicting), 'recording')} with the same sound as another but "
            "a different transcript",
            meaning="At least one of each pair of transcripts is wrong, or not complete.",
            advice="Listen, and keep the right one. Many of these with neighbouring ids mean that "
            "transcripts slipped by a line.",
            places=tuple(contradicting),
        ),
        Finding(
            code="duplicate_audio",
            severity="warning",
            title=f"{number(len(repeated), 'recording')} with exactly the same sound as another "
            "in the split",
            meaning="Copies count double in training and in the totals.",
            advice="Keep one of each.",
            places=tuple(repeated),
        ),
    ]
    return [finding for finding in findings if finding.places]
