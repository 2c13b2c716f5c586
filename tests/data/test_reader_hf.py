"""Hugging Face datasets, read from local copies: with our decoder, once, and without torchcodec."""

from __future__ import annotations

import pytest

from speechjepa.audio.files import read_audio
from speechjepa.cli.main import main
from speechjepa.data.readers import read_corpus
from tests.data.corpora import audio, refused, rows


@pytest.fixture
def hub(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    import pyarrow

    monkeypatch.setenv("SPEECHJEPA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    contents = [audio(tmp_path / f"{n}.wav", n / 10).read_bytes() for n in (1, 2, 3)]
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "audio": datasets.Audio(decode=False),
            "transcription": datasets.Value("string"),
            "gender": datasets.ClassLabel(names=["male", "female"]),
        }
    )
    table = pyarrow.Table.from_pydict(
        {
            "id": [5, 5, 6],
            "audio": [{"bytes": c, "path": f"r{n}.wav"} for n, c in enumerate(contents)],
            "transcription": ["habari", "jambo", None],
            "gender": [0, 1, 1],
        },
        schema=features.arrow_schema,
    )
    return datasets.Dataset(table)


@pytest.mark.parametrize("form", ["disk", "parquet"])
def test_a_hugging_face_dataset_is_read_with_our_decoder(tmp_path, hub, form) -> None:
    import datasets

    folder = tmp_path / "saved"
    if form == "disk":
        datasets.DatasetDict({"train": hub, "test": hub.select([0])}).save_to_disk(str(folder))
    else:
        folder.mkdir()
        hub.to_parquet(str(folder / "train.parquet"))
        hub.select([0]).to_parquet(str(folder / "test.parquet"))
    utterances = read_corpus(f"hf:{folder}")
    assert [(u.id, u.split, u.text) for u in utterances] == [
        ("train/r0", "train", "habari"),
        ("train/r1", "train", "jambo"),
        ("train/r2", "train", None),
        ("test/r0", "test", "habari"),
    ]
    assert utterances[1].extra == {"id": 5, "gender": "female"}
    assert [len(read_audio(u.audio_path)) for u in utterances] == [1600, 3200, 4800, 1600]
    # Written once: the test row shares its file with the train row, a second reading writes none.
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.wav")}
    assert len(stored) == 3
    assert read_corpus(f"hf:{folder}::test")[0].id == "test/r0"
    assert [u.split for u in read_corpus(str(folder), format="hf", split="test")] == ["test"]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.wav")} == stored
    refused(f"hf:{folder}::other", 'has no split "other"; it has train, test')


def test_an_audiofolder_read_through_datasets_needs_no_torchcodec(tmp_path, hub) -> None:
    audio(tmp_path / "af/train/a.wav")
    rows(tmp_path / "af/train/metadata.jsonl", {"file_name": "a.wav", "text": "x"})
    utterance = read_corpus(f"hf:{tmp_path}/af")[0]
    assert (utterance.id, utterance.text) == ("train/a", "x")
    assert len(read_audio(utterance.audio_path)) == 1600


def test_a_script_dataset_is_read_from_its_parquet_copy(tmp_path, hub, monkeypatch) -> None:
    import datasets

    hub.to_parquet(str(tmp_path / "train.parquet"))
    local = datasets.load_dataset(str(tmp_path), streaming=True)
    asked = []

    def load(name: str, config: str | None = None, **options: object) -> object:
        asked.append((name, config, options.get("data_dir"), options.get("revision")))
        if "revision" not in options:
            raise RuntimeError("Dataset scripts are no longer supported, but found fleurs.py")
        return local

    monkeypatch.setattr(datasets, "load_dataset", load)
    first = read_corpus("hf:google/fleurs:sw_ke:train")
    assert len(first) == 3
    assert asked[1] == ("google/fleurs", None, "sw_ke", "refs/convert/parquet")
    # What was fetched from the Hub is not fetched again.
    assert read_corpus("hf:google/fleurs:sw_ke:train") == first
    assert len(asked) == 2


def test_a_dataset_name_that_means_nothing_is_refused(tmp_path) -> None:
    refused("hf:", "must be hf:NAME")
    refused("hf:a/b:c:d:e", "must be hf:NAME")
    refused(f"hf:{tmp_path}/gone", "gone: does not exist")


def test_a_network_that_breaks_off_is_explained(tmp_path, hub, monkeypatch) -> None:
    import datasets

    class Broken(Exception):
        """As what httpx raises: neither an OSError nor a ValueError."""

    def break_off(*args: object, **options: object) -> object:
        raise Broken("the peer closed the connection")

    monkeypatch.setattr(datasets, "load_dataset", break_off)
    refused("hf:google/fleurs:sw_ke", "cannot be opened: Broken: the peer closed.*the network")

    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: {"train": hub})
    monkeypatch.setattr("speechjepa.data.readers.hf._store", break_off)
    refused("hf:google/fleurs:sw_ke", "broke off: Broken: the peer closed.*Start again")
    assert not list((tmp_path / "cache").rglob("*.jsonl"))  # half a list is not taken for a whole


def test_a_dataset_with_ids_of_its_own_is_written_as_a_manifest(tmp_path, hub, capsys) -> None:
    hub.to_parquet(str(tmp_path / "parquet/train.parquet"))
    manifest = tmp_path / "manifest.jsonl"
    main(["check", f"hf:{tmp_path}/parquet", "--write", str(manifest)])
    read = read_corpus(manifest)
    assert [u.id for u in read] == ["train/r0", "train/r1", "train/r2"]
    assert read[0].extra == {"original_id": 5, "gender": "male"}
