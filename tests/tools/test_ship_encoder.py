"""What the encoder that ships says of how it learnt."""

from __future__ import annotations

from tools.ship_encoder import with_lessons


def test_lessons_are_in_the_order_of_learning() -> None:
    first = {"pretrain": {"steps": 1, "init": "/here"}, "finetune": {"steps": 2, "init": "/here"}}
    second = {"pretrain": {"steps": 1}, "finetune": {"steps": 3}}
    assert with_lessons(with_lessons([], first), second) == [
        {"steps": 1},
        {"steps": 2},
        {"steps": 3},
    ]


def test_an_encoder_that_shipped_stands_for_its_lessons() -> None:
    shipped = {"pretrain": {"steps": 1}, "first_phones": {"steps": 2}, "finetune": {"steps": 3}}
    run = {"pretrain": {"steps": 1}, "first_phones": {"steps": 2}, "finetune": {"steps": 4}}
    steps = [stage["steps"] for stage in with_lessons(with_lessons([], shipped), run)]
    assert steps == [1, 2, 3, 4]
