"""Parallel speech: utterances with what says the same in another language, as sound or as text.

The other side is named in the columns `target_audio` and `translation` of the source's corpus,
each a value or {language: value}, or it is another corpus whose utterances have the same `key`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechjepa.data.readers.common import ReadOptions, make_roots
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError

logger = logging.getLogger(__name__)

AUDIO_COLUMN = "target_audio"
TEXT_COLUMN = "translation"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An utterance and what says the same in the target language."""

    source: Utterance
    target: Utterance | None = None
    """Its translation as sound, with text where there is text; None = text alone."""
    text: str | None = None
    """Its translation as written in the corpus; None = not known."""

    @property
    def id(self) -> str:
        """The id of the source."""
        return self.source.id


def pair_utterances(
    source: Sequence[Utterance],
    *,
    language: str | None = None,
    target: Sequence[Utterance] | None = None,
    data_root: Path | None = None,
) -> list[Pair]:
    """Return the pairs of a corpus, in its order; utterances without a translation are left out.

    Args:
        source: Utterances of the language that is translated.
        language: Which entry of {language: value} columns is the target; None = the only one.
        target: Utterances of the target language, joined by `key`; None = the columns of `source`
            say what the target is.
        data_root: Folder that target audio may lie in besides the source manifest's own.

    Raises:
        DataError: A column holds something else, its file would leave the data folder, a key is
            said twice by the target corpus, or there is no pair.
    """
    if target is None:
        found = [_from_columns(u, language, data_root) for u in source]
    else:
        by_key = _by_key(target)
        found = [_joined(u, by_key) for u in source]
    pairs = [pair for pair in found if pair is not None]
    if not pairs:
        place = source[0].source.rpartition(":")[0] if source else "the corpus"
        how = (
            f'a column "{AUDIO_COLUMN}" or "{TEXT_COLUMN}"'
            + (f' with the language "{language}"' if language else "")
            if target is None
            else f'a "key" that one of the {len(target)} target utterances has'
        )
        raise DataError(f"none of the {len(source)} utterances of {place} has {how}.")
    if len(pairs) < len(source):
        logger.info("%d of %d utterances have a translation", len(pairs), len(source))
    return pairs


def _from_columns(
    utterance: Utterance, language: str | None, data_root: Path | None
) -> Pair | None:
    audio = _entry(utterance, AUDIO_COLUMN, language)
    text = _entry(utterance, TEXT_COLUMN, language)
    if audio is None:
        return None if text is None else Pair(source=utterance, text=text)
    manifest, _, line = utterance.source.rpartition(":")
    path = Path(manifest or utterance.audio_path)
    number = int(line) if line.isdigit() else None
    roots = make_roots(path.parent, ReadOptions(data_root=data_root), allow_absolute=True)
    target = Utterance(
        id=utterance.id,
        audio_path=roots.locate(audio, path=path, line=number),
        text=text,
        language=language or _only_language(utterance),
        source=utterance.source,
        extra={"key": key} if (key := utterance.extra.get("key")) else {},
    )
    return Pair(source=utterance, target=target, text=text)


def _entry(utterance: Utterance, column: str, language: str | None) -> str | None:
    value: Any = utterance.extra.get(column)
    if isinstance(value, Mapping):
        if language is None and len(value) > 1:
            raise DataError(
                f'{utterance.source}: "{column}" has the languages {", ".join(map(str, value))}: '
                "say which is the target language."
            )
        value = next(iter(value.values()), None) if language is None else value.get(language)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DataError(
            f'{utterance.source}: "{column}" must be text, or {{language: text}}, '
            f"but is {value!r} instead."
        )
    return value if value.strip() else None


def _only_language(utterance: Utterance) -> str | None:
    value = utterance.extra.get(AUDIO_COLUMN)
    return next(iter(value)) if isinstance(value, Mapping) and len(value) == 1 else None


def _by_key(target: Sequence[Utterance]) -> dict[str, Utterance]:
    found: dict[str, Utterance] = {}
    for utterance in target:
        key = _key(utterance)
        if key is None:
            continue
        first = found.setdefault(key, utterance)
        if first is not utterance:
            raise DataError(
                f'{utterance.source}: the key "{key}" is that of {first.source} already: '
                "which of them is the translation? Remove one."
            )
    return found


def _joined(utterance: Utterance, by_key: Mapping[str, Utterance]) -> Pair | None:
    key = _key(utterance)
    target = None if key is None else by_key.get(key)
    return None if target is None else Pair(source=utterance, target=target, text=target.text)


def _key(utterance: Utterance) -> str | None:
    key = utterance.extra.get("key")
    if key is None or key == "":
        return None
    if not isinstance(key, str | int):
        raise DataError(f'{utterance.source}: "key" must be text, but is {key!r} instead.')
    return str(key)
