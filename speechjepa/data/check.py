"""The data doctor: what is wrong with a corpus, before training wastes an hour on it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from speechjepa.audio.files import OVERSHOOT
from speechjepa.data.check_audio import (
    Heard,
    Measurement,
    Progress,
    measure,
    stretch_of,
)
from speechjepa.data.check_characters import Written, count_characters
from speechjepa.data.check_form import form_findings
from speechjepa.data.check_recordings import audio_findings, duplicate_findings
from speechjepa.data.check_text import (
    fit_findings,
    frames_needed,
    split_findings,
    unread_columns,
)
from speechjepa.data.findings import (
    CheckReport,
    Finding,
    Place,
    Total,
    Totals,
    by_severity,
    number,
)
from speechjepa.data.utterance import Utterance
from speechjepa.errors import ConfigError
from speechjepa.text.normalize import TextConfig, normalize_text

NONE = "(none)"
FEW_RECORDINGS = 3
"""One or two bad files are left out, however small the split: they never stop a run."""
DURATION_EDGES = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0)


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What the data doctor takes for granted and where it draws its lines."""

    text: TextConfig = TextConfig()
    """How transcripts are normalised before they are looked at."""
    encoder_hop_ms: float = 20.0
    """Time between two frames of the encoder that CTC will sit on (ms)."""
    min_seconds: float = 0.1
    """Shorter recordings are reported (seconds)."""
    max_seconds: float = 30.0
    """Longer recordings are reported (seconds)."""
    silence_dbfs: float = -60.0
    """Recordings whose loudest 0.1 s stays below this are silent (dB below full scale)."""
    max_clipped_percent: float = 0.5
    """Share of samples at full scale above which a recording is reported (percent)."""
    rare_count: int = 5
    """Characters seen fewer times than this are reported."""
    max_unusable_percent: float = 5.0
    """Training would break when more of the recordings of a split than this cannot be used
    (percent), unless it is one or two; fewer are left out one by one."""
    pool_splits: tuple[str, ...] = ("pool", "unlabelled")
    """Splits of audio without labels, which may repeat what other splits hold."""
    train_split: str = "train"
    """The split that the model learns from; the only split, where there is but one."""
    decode: bool = True
    """False reads only the headers of audio files: quick, but deaf."""
    num_workers: int = 2
    """Decoding threads."""

    def __post_init__(self) -> None:
        for name in ("encoder_hop_ms", "max_seconds", "num_workers"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"`{name}` must be above 0, but is {getattr(self, name)} instead."
                )


def check_corpus(
    splits: Mapping[str, Sequence[Utterance]],
    options: CheckOptions | None = None,
    *,
    known: Sequence[Finding] = (),
    progress: Progress | None = None,
) -> CheckReport:
    """Look at every recording and transcript of a corpus and report what is wrong.

    Args:
        splits: Utterances by split name.
        options: Limits and text settings; None = the defaults.
        known: What the reader found already.
        progress: Called with (files, seconds of audio) as files are done.

    Returns:
        Totals, distributions and findings. Bad files are findings, never exceptions.
    """
    options = options or CheckOptions()
    everything = [u for utterances in splits.values() for u in utterances]
    sounds = measure(
        everything, num_workers=options.num_workers, decode=options.decode, progress=progress
    )
    heard = [
        Heard(utterance=u, split=split, sound=sounds[stretch_of(u)])
        for split, utterances in splits.items()
        for u in utterances
    ]
    judged = [h for h in heard if h.split not in options.pool_splits]
    written = [
        Written(utterance=h.utterance, split=h.split, text=normalize_text(text, options.text))
        for h in judged
        if (text := h.utterance.text) is not None
    ]
    by_utterance = {(h.split, id(h.utterance)): h for h in heard}
    train = _train_split(splits, options)
    characters, character_findings = count_characters(written, rare_count=options.rare_count)
    findings = [
        *known,
        *_empty_splits(splits, train, written),
        *unread_columns(judged, written),
        *audio_findings(
            heard,
            min_seconds=options.min_seconds,
            max_seconds=options.max_seconds,
            silence_dbfs=options.silence_dbfs,
            max_clipped_percent=options.max_clipped_percent,
        ),
        *duplicate_findings(heard, pool_splits=frozenset(options.pool_splits)),
        *_sample_rate_findings(judged, train),
        *_language_findings(written, train),
        *fit_findings(written, by_utterance, encoder_hop_ms=options.encoder_hop_ms),
        *form_findings(written, options.text),
        *character_findings,
        *split_findings(written, judged, train=train),
    ]
    findings += _unusable_findings(heard, written, options)
    return CheckReport(
        totals=_totals(heard),
        durations=_histogram([h.sound.seconds for h in heard if not h.sound.problem]),
        sample_rates=_sample_rates(heard),
        characters=characters,
        removed_characters=_removed_characters(written),
        findings=by_severity(findings),
        utterances=tuple(_with_duration(h) for h in heard),
    )


def _train_split(splits: Mapping[str, Sequence[Utterance]], options: CheckOptions) -> str | None:
    names = [name for name in splits if name not in options.pool_splits]
    for name in (options.train_split, "training"):
        if name in names:
            return name
    return names[0] if len(names) == 1 else None


def _with_duration(heard: Heard) -> Utterance:
    """Return the utterance with its split and, where it could be read, its length."""
    u = heard.utterance
    duration = heard.sound.seconds if heard.sound.seconds else u.duration
    return dataclasses.replace(
        u, split=u.split or heard.split, duration=None if duration is None else round(duration, 4)
    )


def _totals(heard: Sequence[Heard]) -> Totals:
    every = Total()
    tables: dict[str, dict[str, Total]] = {"splits": {}, "speakers": {}, "languages": {}}
    for h in heard:
        u = h.utterance
        labelled = u.text is not None
        every = every.plus(h.sound.seconds, labelled)
        for table, key in (
            ("splits", h.split),
            ("speakers", u.speaker or NONE),
            ("languages", u.language or NONE),
        ):
            tables[table][key] = tables[table].get(key, Total()).plus(h.sound.seconds, labelled)
    by_size = {
        name: dict(sorted(tables[name].items(), key=lambda item: (-item[1].seconds, item[0])))
        for name in ("speakers", "languages")
    }
    return Totals(all=every, splits=tables["splits"], **by_size)


def _histogram(seconds: Sequence[float]) -> tuple[tuple[float, float | None, int], ...]:
    """Count durations in bins that hold their lower edge."""
    edges: list[float | None] = [*DURATION_EDGES, None]
    counts = Counter(sum(edge <= s for edge in DURATION_EDGES) - 1 for s in seconds)
    return tuple((first, edges[i + 1], counts[i]) for i, first in enumerate(DURATION_EDGES))


def _sample_rates(heard: Sequence[Heard]) -> dict[int, int]:
    rates = {h.utterance.audio_path: h.sound.sample_rate for h in heard if h.sound.sample_rate}
    return dict(sorted(Counter(rates.values()).items()))


def _removed_characters(written: Sequence[Written]) -> dict[str, int]:
    """Count characters of the transcripts that are not in their normalised form."""
    counts: Counter[str] = Counter()
    for w in written:
        raw = Counter(c for c in (w.utterance.text or "").lower() if not c.isspace())
        kept = set(w.text)
        counts.update({c: n for c, n in raw.items() if c not in kept and not c.isalpha()})
    return dict(counts.most_common())


def _empty_splits(
    splits: Mapping[str, Sequence[Utterance]], train: str | None, written: Sequence[Written]
) -> list[Finding]:
    findings = [
        Finding(
            code="empty_split",
            severity="error",
            title=f"{name} holds no recordings",
            meaning="There is nothing to train on or to measure with.",
            advice="Check the path and the format.",
            places=(Place(source=name, id="", split=name),),
        )
        for name, utterances in splits.items()
        if not utterances
    ]
    labelled = list(dict.fromkeys(w.split for w in written))
    if train is None and len(labelled) > 1:
        findings.append(
            Finding(
                code="no_train_split",
                severity="note",
                title=f"None of the splits {', '.join(labelled)} is called train",
                meaning="What the others share with the split for training, and which of their "
                "characters it lacks, is not looked at.",
                advice="Say which is which: train=FOLDER dev=FOLDER.",
                places=tuple(Place(source=name, id="", split=name) for name in labelled),
            )
        )
    if train is not None and splits[train] and not any(w.split == train for w in written):
        findings.append(
            Finding(
                code="no_transcripts",
                severity="note",
                title=f"{train} has no transcripts",
                meaning="An encoder can be pretrained on it, but no recogniser can be trained.",
                advice="Transcribe ten minutes; short sentences of several speakers serve best.",
                places=(Place(source=train, id="", split=train),),
            )
        )
    return findings


def _sample_rate_findings(heard: Sequence[Heard], train: str | None) -> list[Finding]:
    rates = sorted({h.sound.sample_rate for h in heard if h.sound.sample_rate})
    if len(rates) < 2:
        return []
    in_train = {h.sound.sample_rate for h in heard if h.split == train}
    rarest = Counter(h.sound.sample_rate for h in heard if h.sound.sample_rate).most_common()[1:]
    others = {rate for rate, _ in rarest}
    unseen = {r for r in rates if r < 16000} - in_train if train is not None else set()
    return [
        Finding(
            code="sample_rates",
            severity="warning" if unseen else "note",
            title="Recordings with different sampling rates: "
            + ", ".join(f"{rate:,} Hz" for rate in rates),
            meaning="All are brought to 16,000 Hz. What was recorded below that lacks the high "
            "sounds (s, f, sh)"
            + (f", and {train} has none of that kind to learn from." if unseen else "."),
            advice="Use the originals if these are copies; otherwise nothing needs to be done.",
            places=tuple(
                h.place(f"{h.sound.sample_rate:,} Hz")
                for h in heard
                if h.sound.sample_rate in (unseen or others)
            ),
        )
    ]


def _language_findings(written: Sequence[Written], train: str | None) -> list[Finding]:
    languages = Counter(w.utterance.language for w in written if w.split == train)
    if len(languages) < 2:
        return []
    main = languages.most_common(1)[0][0]
    return [
        Finding(
            code="mixed_languages",
            severity="note",
            title=f"{train} has transcripts in several languages: "
            + ", ".join(f"{language or NONE} ({n:,})" for language, n in languages.most_common()),
            meaning="The recogniser learns all of them at once, with the letters of all.",
            advice="If it is meant for one language, leave the others without transcripts: their "
            "sound still helps pretraining.",
            places=tuple(
                w.place(f'{w.utterance.language or NONE}: "{w.text}"')
                for w in written
                if w.split == train and w.utterance.language != main
            ),
        )
    ]


def _unusable_findings(
    heard: Sequence[Heard], written: Sequence[Written], options: CheckOptions
) -> list[Finding]:
    """Return an error for each split of which too much would be left out."""
    texts = {(w.split, id(w.utterance)): w.text for w in written}
    reasons: dict[str, list[Place]] = {}
    sizes = Counter(h.split for h in heard)
    for h in heard:
        text = texts.get((h.split, id(h.utterance)))
        reason = _why_unusable(h.sound, text, options)
        if reason:
            reasons.setdefault(h.split, []).append(h.place(reason))
    return [
        Finding(
            code="mostly_unusable",
            severity="error",
            title=f"{len(places):,} of {number(sizes[split], 'recording')} of {split} "
            f"({len(places) / sizes[split]:.0%}) cannot be used",
            meaning="Single bad recordings are left out, but so many mean that something is wrong "
            "with all of them.",
            advice="See the reasons, correct them, and check again.",
            places=tuple(places),
        )
        for split, places in reasons.items()
        if len(places) * 100 > options.max_unusable_percent * sizes[split]
        and (len(places) >= FEW_RECORDINGS or len(places) == sizes[split])
    ]


def _why_unusable(sound: Measurement, text: str | None, options: CheckOptions) -> str:
    if sound.problem:
        return sound.problem
    if not sound.seconds:
        return "no sound in the file"
    if sound.missing_seconds > OVERSHOOT:
        return f"ends {sound.missing_seconds:.2f} s after its file"
    if text is not None:
        if not text:
            return "its transcript has no letters"
        if frames_needed(text) > int(sound.seconds * 1000 / options.encoder_hop_ms + 1e-6):
            return "its transcript does not fit its frames"
    return ""
