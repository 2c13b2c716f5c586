"""What a recipe does so that its model can tell its languages apart."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from speechjepa.data.utterance import Utterance
from speechjepa.models.language_classifier import LANGUAGE_FILE

logger = logging.getLogger(__name__)


def teach_languages(bundle: Path, utterances: Iterable[Utterance], *, seed: int) -> None:
    """Write the language classifier of a bundle that was fine-tuned on several languages.

    A bundle of one language gets none, and an older one is removed.

    Args:
        bundle: Its folder.
        utterances: Labelled or not; those of other languages are left out.
        seed: Of the draw.
    """
    from speechjepa.inference.model import load
    from speechjepa.inference.spoken_language import learn_languages
    from speechjepa.models.bundle import default_device

    (bundle / LANGUAGE_FILE).unlink(missing_ok=True)
    model = load(bundle, device=default_device())
    if len(model.languages) < 2:
        return
    # The same audio may be among the labelled and in the pool.
    known = {(u.audio_path, u.start): u for u in utterances if u.language in model.languages}
    classifier, found = learn_languages(model, known.values(), seed=seed)
    classifier.save(bundle)
    accuracy = found["accuracy_other_half"]
    heard = "" if accuracy is None else f", {accuracy:.1%} right on the other half of the speakers"
    logger.info("languages: %s%s", ", ".join(classifier.languages), heard)
    if found["one_speaker"]:
        logger.warning(
            "languages: %s has one speaker: it may be told by the voice, not by the language",
            ", ".join(found["one_speaker"]),
        )
