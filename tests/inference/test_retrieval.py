"""Known utterances are found again by their stretches, said, and refused where damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from speechjepa.audio.files import write_wav
from speechjepa.errors import ModelError
from speechjepa.inference.chunks import Chunk
from speechjepa.inference.model import load
from speechjepa.inference.retrieval import Known, Retrieval, embed, load_retrieval
from speechjepa.inference.translate import FileTranslator, TranslateConfig
from tests.translation_bundle import bundle


def recording(path: Path, waveform: np.ndarray) -> Path:
    write_wav(path, waveform)
    return path


def test_the_nearest_known_utterance_is_found_again_with_a_confidence(model, speech) -> None:
    waveforms = [speech, speech[::-1].copy(), 0.1 * np.sin(np.arange(30000) / 5).astype(np.float32)]
    steps = [embed(model, waveform, 1) for waveform in waveforms]
    known = [Known(id=str(i), units=(i,), text=f"text {i}") for i in range(3)]
    retrieval = Retrieval.fit(known, steps, 1)
    for place, match in enumerate(map(retrieval.find, steps)):
        assert match.known.id == str(place) and match.confidence == pytest.approx(1.0, abs=1e-3)
    louder = retrieval.find(embed(model, 0.9 * speech + 1e-3, 1))
    assert louder.known.id == "0" and louder.confidence < 1


def test_likeness_by_hand() -> None:
    """One channel in each of three directions, so that a step is one of three sounds."""
    sounds = np.eye(3, dtype=np.float32)
    known = [Known(id=name) for name in ("abc", "cba", "c")]
    steps = torch.from_numpy(sounds[[0, 1, 2, 2, 1, 0, 2]])
    lengths = torch.tensor([3, 3, 1])
    identity = (torch.zeros(3), torch.eye(3))
    retrieval = Retrieval(known, steps, lengths, *identity, layer=1)
    same = retrieval.find(torch.from_numpy(sounds[[0, 1, 2]]))
    assert (same.known.id, same.confidence) == ("abc", pytest.approx(1.0))
    # What is said has the windows "bc" and "c", and "abc" has both; of its own three, "abc" is like
    # neither: its first sound meets "b" or "c", its second "c" or nothing.
    found = retrieval.find(torch.from_numpy(sounds[[1, 2]]))
    ours, theirs = 1.0, (0.0 + 1 + 1) / 3
    assert found.known.id == "abc"
    assert found.confidence == pytest.approx(2 * ours * theirs / (ours + theirs), abs=1e-4)


def test_windows_are_four_steps_long() -> None:
    """Six sounds in their order and backwards: sounds alone are the same, stretches are not."""
    sounds = torch.eye(6)
    known = [Known(id="forwards"), Known(id="backwards")]
    steps = torch.cat([sounds, sounds.flip(0)])
    retrieval = Retrieval(known, steps, torch.tensor([6, 6]), torch.zeros(6), torch.eye(6), layer=1)
    slow = []
    for query in sounds.numpy(), sounds.flip(0).numpy():
        windows = [[w[a : a + 4] for a in range(6)] for w in (query, sounds.flip(0).numpy())]
        cosines = np.array(
            [
                [sum((x @ y) for x, y in zip(a, b, strict=False)) / (len(a) * len(b)) ** 0.5]
                for a in windows[0]
                for b in windows[1]
            ]
        ).reshape(6, 6)
        ours, theirs = cosines.max(axis=1).mean(), cosines.max(axis=0).mean()
        slow.append(2 * ours * theirs / (ours + theirs))
    found = [retrieval.likeness(query)[1] for query in (sounds, sounds.flip(0))]
    assert found == pytest.approx(slow, abs=1e-5) and slow[0] < 0.6 < slow[1] == pytest.approx(1)


@pytest.mark.parametrize("block", [1, 3, 10])
def test_what_is_known_in_blocks_is_found_as_at_once(monkeypatch, block: int) -> None:
    generator = torch.Generator().manual_seed(0)
    steps = [torch.randn(size, 5, generator=generator) for size in (1, 7, 2, 9, 4)]
    retrieval = Retrieval.fit([Known(id=str(i)) for i in range(5)], steps, 1)
    query = torch.randn(6, 5, generator=generator)
    whole = retrieval.likeness(query)
    monkeypatch.setattr("speechjepa.inference.retrieval.BLOCK", block)
    assert np.allclose(retrieval.likeness(query), whole, atol=1e-6)


TENSORS = {
    "steps": torch.nn.functional.normalize(torch.ones(5, 3), dim=1),
    "lengths": torch.tensor([2, 3]),
    "mean": torch.zeros(4),
    "projection": torch.ones(4, 3),
}
KNOWN = [{"id": i, "units": [1], "text": None, "speech": None} for i in "ab"]


@pytest.mark.parametrize(
    ("tensors", "entry", "message"),
    [
        ({}, {}, None),
        ({"lengths": torch.tensor([2, 2])}, {}, "5 together"),
        ({"lengths": torch.tensor([6, -1])}, {}, "at least 1"),
        ({"lengths": torch.tensor([2.0, 3.0])}, {}, "as many lengths"),
        ({"lengths": torch.tensor([5])}, {}, "as many lengths"),
        ({"steps": torch.zeros(5, 2)}, {}, "do not fit together"),
        ({"steps": torch.full((5, 3), torch.nan)}, {}, "finite"),
        ({"mean": torch.full((4,), torch.inf)}, {}, "finite"),
        ({"projection": torch.zeros(4)}, {}, "do not fit together"),
        ({}, {"known": []}, "at least one"),
        ({}, {"known": [KNOWN[0], {**KNOWN[1], "units": "12"}]}, "known.json holds"),
        ({}, {"known": [KNOWN[0], {**KNOWN[1], "id": 5}]}, "known.json holds"),
        ({}, {"known": [KNOWN[0], {**KNOWN[1], "text": ["a"]}]}, "known.json holds"),
        ({}, {"known": 5}, "is damaged"),
        ({}, {"layer": "1"}, "`layer` must be a number"),
        ({}, {"layer": -1}, "`layer` must be a number"),
    ],
)
def test_known_utterances_that_are_damaged_are_refused(tmp_path, tensors, entry, message) -> None:
    folder = tmp_path / "retrieval"
    folder.mkdir()
    save_file({**TENSORS, **tensors}, folder / "model.safetensors")
    text = json.dumps({"layer": 1, "known": KNOWN, **entry})
    (folder / "known.json").write_text(text, encoding="utf-8")
    if message is None:
        assert [one.id for one in load_retrieval(tmp_path).known] == ["a", "b"]
        return
    with pytest.raises(ModelError, match=f"is damaged.*{message}|{message}"):
        load_retrieval(tmp_path)


def test_known_utterances_of_another_encoder_are_refused(model, speech, tmp_path) -> None:
    known, steps = [Known(id="a", units=(1,))], [torch.randn(5, 7)]
    Retrieval.fit(known, steps, 1).save(bundle(tmp_path / "b"))
    with pytest.raises(ModelError, match="of another encoder"):
        load(tmp_path / "b").translate(recording(tmp_path / "a.wav", speech), head="retrieval")
    with pytest.raises(ValueError, match="no utterance to know"):
        Retrieval.fit([], [], 1)


def test_steps_are_means_of_frames_over_eighty_milliseconds(model, speech) -> None:
    frames = model.encode(torch.from_numpy(speech)[None], return_layers=True).layers[1][0]
    steps = embed(model, speech, 1)  # frames of 40 ms
    assert len(steps) == -(-len(frames) // 2)
    assert torch.allclose(steps[1], frames[2:4].mean(dim=0), atol=1e-5)
    assert embed(model, np.zeros(3, np.float32), 1).shape == (1, frames.shape[1])


def test_retrieval_is_a_head_of_the_bundle(speech, tmp_path) -> None:
    model = load(bundle(tmp_path / "b"))
    path = recording(tmp_path / "a.wav", speech)
    with pytest.raises(ModelError, match="no known utterances"):
        model.translate(path, head="retrieval")
    known = [Known(id="one", units=(1, 2, 3)), Known(id="two", units=(3,))]
    steps = [embed(model, speech, 1), embed(model, speech[:5000], 1)]
    folder = Retrieval.fit(known, steps, 1).save(tmp_path / "b")
    (segment,) = model.translate(path, head="retrieval")["segments"]
    assert segment["retrieved"] == "one" and segment["units"] == [1, 2, 3]
    assert segment["confidence"] > 0.8 and "score" not in segment
    (folder / "known.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="is damaged"):
        model.translate(path, head="retrieval")
    save_file({"embeddings": torch.zeros(2, 4)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="earlier version.*--redo evaluate"):
        model.translate(path, head="retrieval")


def test_known_translations_are_said_by_their_recordings(speech, tmp_path) -> None:
    path, model = recording(tmp_path / "a.wav", speech), load(bundle(tmp_path / "b"))
    known = [Known(id="one", units=(1, 2, 3)), Known(id="two", units=(3,))]
    steps = [embed(model, speech, 1), embed(model, speech[:5000], 1)]
    said = [0.1 * np.sin(np.arange(size) / 10).astype(np.float32) for size in (24000, 8000)]
    folder = Retrieval.fit(known, steps, 1).save(tmp_path / "b", said)
    found = model.translate(path, head="retrieval")
    (segment,) = found["segments"]
    start, end = (round(16000 * segment[f"speech_{name}"]) for name in ("start", "end"))
    assert segment["retrieved"] == "one" and end - start == pytest.approx(24000, abs=16)
    heard = found["speech"][start:end]
    assert len(heard) == 24000  # opus is lossy, but it is what was said and where
    assert np.corrcoef(heard, said[0])[0, 1] > 0.9
    (folder / "000000.opus").write_bytes(b"no opus")
    with pytest.raises(ModelError, match="is damaged.*000000.opus"):
        model.translate(path, head="retrieval")
    text = (folder / "known.json").read_text(encoding="utf-8")
    for name in ("../a.wav", "..", "", "absent.opus", str(path)):
        (folder / "known.json").write_text(text.replace("000000.opus", name), encoding="utf-8")
        with pytest.raises(ModelError, match="is no file of the folder"):
            model.translate(path, head="retrieval")
    Retrieval.fit(known, steps, 1).save(tmp_path / "b")  # in units again; nothing of before stays
    assert sorted(file.name for file in folder.iterdir()) == ["known.json", "model.safetensors"]
    assert model.translate(path, head="retrieval")["segments"][0]["units"] == [1, 2, 3]


def test_pieces_of_one_known_utterance_are_one_segment(tmp_path, monkeypatch) -> None:
    """Sounds 0 to 5 are known as one utterance, 6 and 7 as another; pieces last a second."""
    model = load(bundle(tmp_path / "b"))
    sounds = torch.eye(8)
    identity = (torch.zeros(8), torch.eye(8))
    known = [Known(id="long", units=(1,)), Known(id="short", units=(2,))]
    retrieval = Retrieval(known, sounds, torch.tensor([6, 2]), *identity, layer=1)
    retrieval.save(tmp_path / "b")
    monkeypatch.setattr(Retrieval, "fits", lambda self, model: True)
    translator = FileTranslator(model, TranslateConfig(head="retrieval"))
    said = {2: [0, 1], 3: [2, 3], 4: [4, 5], 6: [6, 7], 7: [6, 7]}  # by the length of a piece
    monkeypatch.setattr(
        "speechjepa.inference.translate.embed", lambda model, x, layer: sounds[said[len(x)]]
    )

    def found(*pieces: tuple[float, int]) -> list[tuple[float, float, str, float]]:
        chunks, now = [], 0
        for begin, size in pieces:
            start = round(16000 * begin)
            if start > now:
                chunks.append(Chunk(now, start, now, None))
            now = start + 16000
            chunks.append(Chunk(start, now, start, np.zeros(size, np.float32)))
        monkeypatch.setattr("speechjepa.inference.translate.speech_chunks", lambda *a, **k: chunks)
        segments = [segment for segment, _ in translator.segments([])]
        assert [segment["id"] for segment in segments] == list(range(len(segments)))
        return [(s["start"], s["end"], s["retrieved"], s["confidence"]) for s in segments]

    exactly = pytest.approx(1.0, abs=1e-3)
    whole = ((0.0, 2), (1.08, 3), (2.0, 4))
    assert found(*whole, (3.0, 6), (4.0, 7)) == [
        (0.0, 3.0, "long", exactly),
        (3.0, 4.0, "short", exactly),  # what is said twice is two utterances
        (4.0, 5.0, "short", exactly),
    ]
    # Ten others before it change nothing; what is said again after a second is another one.
    many = [(2.0 * n, 6) for n in range(10)]
    again = [(20 + begin, size) for begin, size in whole]
    later = [(24 + begin, size) for begin, size in whole]
    assert found(*many, *again, *later)[10:] == [
        (20.0, 23.0, "long", exactly),
        (24.0, 27.0, "long", exactly),
    ]
    assert [s[2] for s in found((0.0, 2), (1.5, 3))] == ["long", "long"]  # too far apart
    assert len(found((0.0, 2), (1.2, 3))) == 1
