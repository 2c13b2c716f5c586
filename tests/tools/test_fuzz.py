"""The fuzzer finds what it should, and says when there is nothing."""

from __future__ import annotations

import random
from pathlib import Path

from tools import fuzz


def test_damage_is_the_same_for_the_same_seed_and_changes_the_file() -> None:
    content, others = bytes(range(256)) * 8, [b"RIFF" * 50]
    made = [fuzz.damage(content, others, random.Random(seed)) for seed in range(40)]
    assert made == [fuzz.damage(content, others, random.Random(seed)) for seed in range(40)]
    assert sum(one != content for one in made) > 35
    assert fuzz.damage(b"", others, random.Random(0)) == b""


def test_every_valid_file_is_decoded_and_a_death_is_seen(tmp_path: Path) -> None:
    decoder = fuzz.Decoder()
    try:
        for name, content in fuzz.seeds(tmp_path).items():
            path = tmp_path / f"valid.{name}"
            path.write_bytes(content)
            assert decoder.ask(path) == ["decoded"] * 3, name
        (tmp_path / "text.wav").write_text("no sound")
        assert decoder.ask(tmp_path / "text.wav") == ["refused"] * 3
        decoder.process.kill()
        decoder.process.wait()
        assert decoder.ask(path) == ["the process died with status -9"]
        assert decoder.ask(path) == ["decoded"] * 3, "and the next file has a new one"
    finally:
        decoder.close()
