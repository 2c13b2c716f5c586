"""The bench of learning: which utterances a fold of spoken digits may learn from."""

from __future__ import annotations

from speechjepa.data.utterance import Utterance
from tools.benchmark_learning import digits_fold


def said(split: str) -> list[Utterance]:
    return [
        Utterance(id=f"{who}-{split}{i}", audio_path=f"{who}{i}.wav", text="one", speaker=who)
        for who in ("ann", "bob")
        for i in range(2)
    ]


def ids(utterances: list[Utterance]) -> list[str]:
    return [u.id for u in utterances]


def test_the_speaker_left_out_is_measured_on_and_never_learnt_from() -> None:
    fold = digits_fold(
        said("train"), said("dev"), {"ann-train0", "bob-train0"}, "ann", teaches_itself=False
    )
    assert (ids(fold["train"]), ids(fold["dev"])) == (["bob-train0"], ["ann-dev0", "ann-dev1"])


def test_a_model_that_teaches_itself_hears_the_speaker_but_gets_no_transcript_and_no_dev() -> None:
    fold = digits_fold(
        said("train"), said("dev"), {"ann-train0", "bob-train0"}, "ann", teaches_itself=True
    )
    assert [u.id for u in fold["train"] if u.text] == ["bob-train0"]
    assert {u.id for u in fold["train"]} == {u.id for u in said("train")}
    assert ids(fold["dev"]) == ["bob-dev0", "bob-dev1"]
