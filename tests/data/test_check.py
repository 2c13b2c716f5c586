"""The data doctor: each finding is provoked by a tiny corpus, and a clean corpus has none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechjepa.audio.files import write_wav
from speechjepa.data.check import CheckOptions, check_corpus
from speechjepa.data.check_render import render_report
from speechjepa.data.findings import CheckReport, Finding
from speechjepa.data.utterance import Utterance
from speechjepa.errors import ConfigError
from speechjepa.text.normalize import TextConfig

RATE = 8000


class Corpus:
    """Builds utterances, each with audio of its own and a line number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def add(self, text: str | None = "mama", *, sound: Any = 1.0, **fields: Any) -> Utterance:
        """Add an utterance; `sound` is seconds of noise, samples, or a path."""
        self.count += 1
        name = f"u{self.count}"
        path = self.folder / f"{name}.wav"
        if isinstance(sound, Path):
            path = sound
        else:
            rate = fields.pop("rate", RATE)
            if isinstance(sound, float):
                rng = np.random.default_rng(self.count)
                sound = rng.uniform(-0.1, 0.1, round(sound * rate))
            write_wav(path, sound, rate)
        defaults: dict[str, Any] = {
            "id": name,
            "audio_path": path,
            "text": text,
            "source": f"{self.folder}/metadata.jsonl:{self.count}",
        }
        return Utterance(**(defaults | fields))

    def add_all(self, texts: Sequence[str | None]) -> list[Utterance]:
        """Add an utterance for each text."""
        return [self.add(text) for text in texts]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def check(train: Sequence[Utterance], **options: Any) -> CheckReport:
    """Check one split without the errors that small numbers bring."""
    splits = {"train": list(train)} | options.pop("splits", {})
    return check_corpus(splits, CheckOptions(**({"rare_count": 0} | options)))


def finding(report: CheckReport, code: str) -> Finding:
    """Return the finding of a code; fail with the codes there are."""
    found = {f.code: f for f in report.findings}
    assert code in found, f"{code} not in {sorted(found)}"
    return found[code]


def ids(report: CheckReport, code: str) -> list[str]:
    return [p.id for p in finding(report, code).places]


def test_a_clean_corpus_has_no_findings(corpus: Corpus) -> None:
    report = check(corpus.add_all(["mama", "papa", "ama"]))
    assert report.findings == ()
    assert not report.breaks_training


def test_totals_count_hours_and_labelled_minutes(corpus: Corpus) -> None:
    train = [
        corpus.add("a", sound=3.0, speaker="ann", language="mdw"),
        corpus.add(None, sound=1.5, speaker="ben", language="mdw"),
    ]
    dev = [corpus.add("a b", sound=0.6, speaker="ann")]
    report = check(train, splits={"dev": dev})
    totals = report.totals
    assert totals.all.utterances == 3
    assert totals.all.seconds == pytest.approx(5.1)
    assert totals.splits["train"].labelled_seconds == pytest.approx(3.0)
    assert totals.speakers["ann"].seconds == pytest.approx(3.6)
    assert totals.languages["(none)"].utterances == 1
    assert totals.to_json()["splits"]["train"]["labelled_minutes"] == 0.05
    assert sum(n for _, _, n in report.durations) == 3
    assert (0.5, 1.0, 1) in report.durations and (3.0, 5.0, 1) in report.durations
    assert report.sample_rates == {RATE: 3}


def test_unreadable_files_are_findings_with_file_and_line(corpus: Corpus) -> None:
    broken = corpus.folder / "broken.wav"
    broken.write_bytes(b"RIFF this is not audio")
    train = [corpus.add(sound=broken), corpus.add(sound=corpus.folder / "missing.wav")]
    report = check(train, max_unusable_percent=100)
    places = finding(report, "unreadable_audio").places
    assert [p.id for p in places] == ["u1", "u2"]
    assert places[0].source == f"{corpus.folder}/metadata.jsonl:1"
    assert all(p.detail for p in places)
    assert not report.breaks_training


def test_many_unusable_recordings_would_break_training(corpus: Corpus) -> None:
    good = corpus.add_all(["mama"] * 9)
    bad = [corpus.add(sound=corpus.folder / f"missing{i}.wav") for i in range(3)]
    report = check([*good, *bad])
    assert report.breaks_training
    assert ids(report, "mostly_unusable") == ["u10", "u11", "u12"]
    assert not check([*good, *bad], max_unusable_percent=25).breaks_training
    assert not check([*good, *bad[:2]]).breaks_training  # one bad file never stops a run
    assert check(bad[:1]).breaks_training  # but nothing else is there


def test_empty_files_and_empty_stretches(corpus: Corpus) -> None:
    train = [corpus.add(sound=np.zeros(0)), corpus.add(start=5.0)]
    assert ids(check(train), "empty_audio") == ["u1", "u2"]


def test_silent_files(corpus: Corpus) -> None:
    click = np.full(RATE, 1e-4)
    click[:800] = 0.1
    train = [corpus.add(sound=np.zeros(RATE)), corpus.add(sound=np.full(RATE, 5e-4))]
    assert ids(check([*train, corpus.add(sound=click)]), "silent_audio") == ["u1", "u2"]


def test_clipped_files_come_worst_first(corpus: Corpus) -> None:
    wave = np.sin(np.arange(RATE) * 0.1)
    train = [corpus.add(sound=0.9 * wave), corpus.add(sound=1.5 * wave), corpus.add(sound=9 * wave)]
    assert ids(check(train), "clipped_audio") == ["u3", "u2"]


def test_too_short_and_too_long_files(corpus: Corpus) -> None:
    train = [corpus.add(sound=0.05), corpus.add(sound=2.5)]
    report = check(train, max_seconds=2.0)
    assert (ids(report, "too_short"), ids(report, "too_long")) == (["u1"], ["u2"])


def test_an_utterance_that_ends_after_its_file(corpus: Corpus) -> None:
    train = [corpus.add(duration=1.05), corpus.add(duration=1.3), corpus.add(duration=9.0)]
    report = check(train)
    assert ids(report, "audio_ends_early") == ["u2", "u3"]
    assert ids(check(train[2:]), "mostly_unusable") == ["u3"]


def test_stretches_of_one_file_are_measured_apart(corpus: Corpus) -> None:
    sound = np.concatenate([np.zeros(RATE), np.sin(np.arange(RATE)) * 0.3, np.ones(RATE)])
    first = corpus.add(sound=sound, duration=1.0)
    path = first.audio_path
    train = [
        first,
        corpus.add(sound=path, start=1.0, duration=1.0),
        corpus.add(sound=path, start=2.0),
    ]
    report = check(train)
    assert ids(report, "silent_audio") == ["u1"]
    assert ids(report, "clipped_audio") == ["u3"]
    assert report.totals.all.seconds == pytest.approx(3.0)
    assert report.sample_rates == {RATE: 1}


def test_duplicate_audio_is_found_by_its_samples(corpus: Corpus) -> None:
    sound = np.random.default_rng(0).uniform(-0.2, 0.2, RATE)
    train = [corpus.add("a", sound=sound), corpus.add("a", sound=sound), corpus.add("a")]
    assert ids(check(train), "duplicate_audio") == ["u2"]


def test_the_same_sound_with_another_transcript_contradicts(corpus: Corpus) -> None:
    sound = np.random.default_rng(0).uniform(-0.2, 0.2, RATE)
    train = [corpus.add("a", sound=sound), corpus.add("aa", sound=sound)]
    assert ids(check(train), "contradicting_duplicates") == ["u2"]


def test_audio_shared_between_splits_but_not_with_the_pool(corpus: Corpus) -> None:
    train, dev = [corpus.add("ab")], [corpus.add("ba")]
    copied = [dataclasses.replace(dev[0], id="copy", source="other.jsonl:1")]
    report = check([*train, *copied], splits={"dev": dev, "pool": train + dev})
    shared = finding(report, "audio_shared_between_splits").places
    assert [(p.id, p.split) for p in shared] == [("u2", "dev")]
    assert "other.jsonl:1" in shared[0].detail


def test_a_duplicate_id_breaks_training(corpus: Corpus) -> None:
    report = check([corpus.add(id="x"), corpus.add(id="x")])
    assert finding(report, "duplicate_id").severity == "error"
    assert "metadata.jsonl:1" in finding(report, "duplicate_id").places[0].detail
    assert report.breaks_training


def test_sampling_rates_that_train_lacks_are_a_warning(corpus: Corpus) -> None:
    train, dev = [corpus.add("ab", rate=16000)], [corpus.add("ba")]
    report = check(train, splits={"dev": dev})
    assert finding(report, "sample_rates").severity == "warning"
    assert [p.id for p in finding(report, "sample_rates").places] == ["u2"]
    assert report.sample_rates == {8000: 1, 16000: 1}


def test_transcripts_that_do_not_fit_their_frames(corpus: Corpus) -> None:
    # 0.2 s at 20 ms give 10 frames: ten characters fit, ten with a repeat do not.
    train = [corpus.add("abababababa"[:10], sound=0.2), corpus.add("abababaabb", sound=0.2)]
    report = check(train)
    assert ids(report, "transcript_too_long") == ["u2"]
    assert "10 frames" in finding(report, "transcript_too_long").places[0].detail
    assert "needs 12" in finding(report, "transcript_too_long").places[0].detail
    assert "transcript_too_long" not in {f.code for f in check(train, encoder_hop_ms=10).findings}


def test_unusual_speaking_rates(corpus: Corpus) -> None:
    train = [*corpus.add_all(["mama papa"] * 20), corpus.add("mama", sound=3.0), corpus.add("m")]
    assert ids(check(train), "unusual_rate") == ["u21"]


def test_empty_transcripts(corpus: Corpus) -> None:
    train = [corpus.add("..."), *corpus.add_all(["a"] * 30)]
    assert ids(check(train), "empty_transcript") == ["u1"]


def test_a_kept_bar_breaks_training(corpus: Corpus) -> None:
    train = corpus.add_all(["a|b"])
    report = check(train, text=TextConfig(keep_characters="|"))
    assert finding(report, "word_boundary_in_text").severity == "error"
    assert "word_boundary_in_text" not in {f.code for f in check(train).findings}


def test_remarks_digits_and_stray_marks(corpus: Corpus) -> None:
    report = check(corpus.add_all(["ma [laughs] ma", "room 12", "ma \u0301ma", "ma"]))
    assert ids(report, "annotations") == ["u1"]
    assert ids(report, "digits") == ["u2"]
    assert ids(report, "stray_marks") == ["u3"]


def test_punctuation_inside_words(corpus: Corpus) -> None:
    train = corpus.add_all(["wa:ma", "wa, ma:", "ma-ma it's"])
    assert ids(check(train), "punctuation_inside_words") == ["u1"]
    kept = check(train, text=TextConfig(keep_characters=":-'"))
    assert "punctuation_inside_words" not in {f.code for f in kept.findings}


def test_rare_characters_are_named_with_every_place(corpus: Corpus) -> None:
    report = check(corpus.add_all(["mama", "mama", "maqa"]), rare_count=3)
    assert finding(report, "rare_characters").title.endswith(": q")
    assert ids(report, "rare_characters") == ["u3"]
    flags = {c.character: c.flags for c in report.characters}
    assert flags == {"a": (), "m": (), "q": ("rare",)}


def test_a_cyrillic_letter_in_latin_text(corpus: Corpus) -> None:
    report = check(corpus.add_all(["mama"] * 30 + ["m\u0430ma"]))
    places = finding(report, "look_alike_characters").places
    assert [p.id for p in places] == ["u31"]
    assert "CYRILLIC SMALL A" in places[0].detail and "LATIN SMALL A" in places[0].detail
    assert "other_script_letters" not in {f.code for f in report.findings}


def test_a_whole_word_in_look_alike_letters(corpus: Corpus) -> None:
    report = check(corpus.add_all(["mama ta"] * 60 + ["mama \u0430"]))
    assert ids(report, "look_alike_characters") == ["u61"]


def test_borrowed_letters_are_only_a_note(corpus: Corpus) -> None:
    report = check(corpus.add_all(["itsωώ", "twεrε"] * 5))
    assert finding(report, "other_script_letters").severity == "note"
    assert len(finding(report, "other_script_letters").places) == 3
    assert [c.character for c in report.characters if "other_script" in c.flags] == ["ε", "ω", "ώ"]


def test_two_scripts_side_by_side_are_not_confused(corpus: Corpus) -> None:
    report = check(corpus.add_all(["mama papa", "\u043c\u0430\u043c\u0430"] * 5))
    codes = {f.code for f in report.findings}
    assert "look_alike_characters" not in codes and "similar_characters" not in codes
    assert "other_script_words" in codes


def test_languages_are_judged_apart(corpus: Corpus) -> None:
    train = [corpus.add("mama", language="a"), corpus.add("\u043c\u0430", language="b")]
    codes = {f.code for f in check(train).findings}
    assert codes == {"mixed_languages"}


def test_several_apostrophes(corpus: Corpus) -> None:
    report = check(corpus.add_all(["ma'a"] * 99 + ["ma\u2019a"]))
    assert ids(report, "look_alike_characters") == ["u100"]
    both = check(corpus.add_all(["ma'a", "ma\u02bca"] * 4))
    assert finding(both, "similar_characters").severity == "note"


def test_marks_that_look_alike_are_compared_on_the_same_letter(corpus: Corpus) -> None:
    caron, breve = "a\u030c", "a\u0306"
    report = check(corpus.add_all([f"m{caron}"] * 60 + [f"m{breve}"]))
    assert ids(report, "look_alike_characters") == ["u61"]
    apart = check(corpus.add_all([f"m{caron}", "gu\u0306"] * 5))
    assert apart.findings == ()


def test_unicode_forms_and_invisible_characters(corpus: Corpus) -> None:
    report = check(corpus.add_all(["m\u00e1", "m\u00e1", "ma\u0301", "ma\u200bma"]))
    assert ids(report, "unicode_forms") == ["u3"]
    assert ids(report, "invisible_characters") == ["u4"]
    assert {c.character for c in report.characters} == {"m", "a", "á"}


def test_one_consistent_unicode_form_is_no_finding(corpus: Corpus) -> None:
    assert check(corpus.add_all(["ma\u0301", "ma\u0301"])).findings == ()


def test_dev_characters_that_train_lacks(corpus: Corpus) -> None:
    report = check(corpus.add_all(["mama"]), splits={"dev": corpus.add_all(["MAZA", "ma ma"])})
    assert ids(report, "unseen_characters") == ["u2"]
    assert "z" in finding(report, "unseen_characters").title


def test_shared_transcripts_warn_and_shared_speakers_are_noted(corpus: Corpus) -> None:
    train = [corpus.add("mama", speaker="ann"), corpus.add("ma", speaker="ben")]
    dev = [corpus.add("Mama!", speaker="ann"), corpus.add("ama", speaker="cy")]
    report = check(train, splits={"dev": dev})
    assert finding(report, "transcripts_shared_between_splits").severity == "warning"
    assert ids(report, "transcripts_shared_between_splits") == ["u3"]
    assert finding(report, "speakers_shared_between_splits").severity == "note"
    assert finding(report, "speakers_shared_between_splits").title.startswith("1 of 2 speakers")


def test_empty_splits_break_training_and_missing_transcripts_are_noted(corpus: Corpus) -> None:
    report = check(corpus.add_all([None]), splits={"dev": []})
    assert finding(report, "empty_split").severity == "error"
    assert finding(report, "no_transcripts").severity == "note"
    splits = {"one": corpus.add_all(["mama"]), "two": corpus.add_all(["papa"])}
    assert "no_train_split" in {f.code for f in check_corpus(splits).findings}


def test_quick_reads_headers_only(corpus: Corpus) -> None:
    report = check([corpus.add(sound=np.zeros(RATE)), corpus.add(start=0.5)], decode=False)
    assert report.findings == ()
    assert report.totals.all.seconds == pytest.approx(1.5)


def test_the_report_is_the_same_with_any_number_of_workers(corpus: Corpus) -> None:
    train = [*corpus.add_all(["mama", "maza"]), corpus.add(sound=corpus.folder / "missing.wav")]
    one, four = (check(train, num_workers=n, rare_count=5).to_json() for n in (1, 4))
    assert one == four


def test_progress_hears_of_every_file(corpus: Corpus) -> None:
    calls: list[tuple[int, float]] = []
    train = corpus.add_all(["a", "a", "a"])
    check_corpus({"train": train}, progress=lambda n, seconds: calls.append((n, seconds)))
    assert sum(n for n, _ in calls) == 3
    assert sum(seconds for _, seconds in calls) == pytest.approx(3.0)


def test_durations_are_filled_in(corpus: Corpus) -> None:
    report = check([corpus.add(sound=1.25)])
    assert (report.utterances[0].duration, report.utterances[0].split) == (1.25, "train")


def test_json_holds_every_place_and_text_only_a_few(corpus: Corpus) -> None:
    report = check([corpus.add(sound=np.zeros(RATE)) for _ in range(9)])
    data = json.loads(json.dumps(report.to_json()))
    silent = next(f for f in data["findings"] if f["code"] == "silent_audio")
    assert silent["count"] == len(silent["places"]) == 9
    few = render_report(report, max_examples=2)
    assert "u2" in few and "u3:" not in few and "and 7 more" in few
    assert "u9" in render_report(report, max_examples=None)


def test_long_transcripts_are_cut_in_text_but_not_in_json(corpus: Corpus) -> None:
    report = check([corpus.add("a1 " * 99, sound=9.0), corpus.add("1", id="\x1b[2J\n")])
    assert r"\x1b[2J\n: " in render_report(report)
    assert max(map(len, render_report(report).splitlines())) < 250
    assert ("a1 " * 99) in finding(report, "digits").places[0].detail


def test_errors_come_first_and_the_last_line_says_what_follows(corpus: Corpus) -> None:
    bad = render_report(check([corpus.add(id="x"), corpus.add(sound=np.zeros(RATE), id="x")]))
    assert bad.index("ERROR: 1 id used a second time") < bad.index("WARNING:")
    assert "Training would break" in bad.splitlines()[-1]
    good = render_report(check(corpus.add_all(["mama"])))
    assert "Nothing would break training (0 errors, 0 warnings, 0 notes)." in good


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="encoder_hop_ms"):
        CheckOptions(encoder_hop_ms=0)
