"""A model that translates, read once and used by every request."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from speechjepa.errors import ModelError
from speechjepa.inference.translate import FileTranslator, TranslateConfig
from speechjepa.inference.translate_stream import LiveTranslation, open_translation, streams
from speechjepa.inference.translator import SpeechTranslator
from speechjepa.serving.answers import ApiError

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel

logger = logging.getLogger(__name__)

HEADS = ("translator", "retrieval")


class ServedTranslator:
    """What translates, for recordings and for live audio.

    Args:
        model: From `speechjepa.load`.
        name: What clients call it.
        chunk_seconds: What live audio is heard at a time.

    Raises:
        ModelError: The model does not translate, or a part of it is damaged.
        ConfigError: It was not trained with chunks of this length.
    """

    def __init__(self, model: SpeechModel, name: str, *, chunk_seconds: float) -> None:
        self.model = model
        self.name = name
        self._chunk_seconds = chunk_seconds
        self.translator = SpeechTranslator(model)
        if self.speaks:
            self.sample_rate = self.translator.voice.sample_rate  # read now, not by a request
        self._by_head = {"translator": self._file_translator("translator")}
        self._no_retrieval = "has no known utterances to retrieve"
        if (self.translator.folder / "retrieval").is_dir():
            try:
                self._by_head["retrieval"] = self._file_translator("retrieval")
            except ModelError as error:  # it can still translate
                self._no_retrieval = "cannot retrieve: the server's log says why"
                logger.warning("%s is served without the head retrieval: %s", name, error)
        self.stream()  # says now what would else be said to every listener

    @property
    def speaks(self) -> bool:
        """Whether translations are spoken."""
        return self.translator.has_voice

    def _file_translator(self, head: str) -> FileTranslator:
        return FileTranslator(self.model, TranslateConfig(head=head), self.translator)

    def of_files(self, head: str) -> FileTranslator:
        """Return what translates recordings with a head."""
        if head not in self._by_head:
            raise ApiError(400, f"`head`: {self.name!r} {self._no_retrieval}", param="head")
        return self._by_head[head]

    def stream(self) -> LiveTranslation:
        """Return what translates live audio."""
        return open_translation(self.translator, chunk_seconds=self._chunk_seconds)

    def about(self) -> dict[str, Any]:
        """Return what it does, for programs and for the page."""
        files = self.translator.files
        return {
            "model": self.name,
            "from": files.source_language,
            "into": files.language,
            "text": self.translator.writes_text,
            "speech": self.speaks,
            "streams": streams(self.translator),
            "heads": list(self._by_head),
        }
