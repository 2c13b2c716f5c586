"""Start a CTC head from the head of the model that training starts from."""

from __future__ import annotations

import logging
import unicodedata

import torch

from speechjepa.models.bundle import Bundle
from speechjepa.models.ctc import CtcModel
from speechjepa.text.vocabulary import WORD_BOUNDARY, Vocabulary

logger = logging.getLogger(__name__)


def has_same_head(vocabulary: Vocabulary, upsample: int, source: Bundle) -> bool:
    """Return whether a bundle's head writes just these symbols, `upsample` a frame: another round
    of the same task."""
    if source.ctc is None or source.vocabulary is None:
        return False
    return source.vocabulary.symbols == vocabulary.symbols and source.ctc.upsample == upsample


def inherit_head(model: CtcModel, vocabulary: Vocabulary, source: Bundle) -> list[str]:
    """Copy what a head knows of the symbols that another head shares with it, in place.

    Most orthographies write many sounds as the International Phonetic Alphabet does, and other
    languages' with the same letters. A letter with a mark starts as the letter. Symbols that the
    source does not have start as the mean of those that it has, so that they are neither heard
    everywhere nor never. Where words end is inherited only with all the symbols.

    Args:
        model: Its head is changed.
        vocabulary: Of `model`.
        source: What training starts from; nothing happens where it has no head of the same shape.

    Returns:
        The symbols that were found.
    """
    old = source.ctc
    if old is None or source.vocabulary is None or old.upsample != model.upsample:
        return []
    ids = {symbol: index for index, symbol in enumerate(source.vocabulary.symbols)}
    if has_same_head(vocabulary, model.upsample, source):
        model.head.load_state_dict(old.head.state_dict())
        return list(vocabulary.symbols)
    del ids[WORD_BOUNDARY]  # phones have none, and where words end is each language's own
    found = {}
    for index, symbol in enumerate(vocabulary.symbols):
        known = ids.get(symbol, ids.get(unicodedata.normalize("NFD", symbol)[0]))
        if known is not None and symbol != WORD_BOUNDARY:
            found[index] = known
    if len(found) < 2:  # the blank alone
        return []
    shape = (model.upsample, -1)
    with torch.no_grad():
        for new, ours in (
            (old.head.weight.unflatten(0, shape), model.head.weight.unflatten(0, shape)),
            (old.head.bias.unflatten(0, shape), model.head.bias.unflatten(0, shape)),
        ):
            ours[:] = new[:, 1:].mean(dim=1, keepdim=True)
            ours[:, list(found)] = new[:, list(found.values())]
    logger.info("the head starts from %d of its %d symbols", len(found), len(vocabulary))
    return [vocabulary.symbols[index] for index in found]
