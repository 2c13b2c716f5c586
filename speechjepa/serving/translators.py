"""A model that translates, read once and used by every request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from speechjepa.inference.translate import FileTranslator, TranslateConfig
from speechjepa.inference.translate_stream import LiveTranslation, open_translation, streams
from speechjepa.inference.translator import SpeechTranslator
from speechjepa.serving.answers import ApiError

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel

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
        self._by_head = {
            head: FileTranslator(model, TranslateConfig(head=head), self.translator)
            for head in HEADS
            if head == "translator" or (self.translator.folder / "retrieval").is_dir()
        }
        self.stream()  # says now what would else be said to every listener

    @property
    def speaks(self) -> bool:
        """Whether translations are spoken."""
        return self.translator.has_voice

    def of_files(self, head: str) -> FileTranslator:
        """Return what translates recordings with a head."""
        if head not in self._by_head:
            message = f"{self.name!r} has no known utterances to retrieve"
            raise ApiError(400, f"`head`: {message}", param="head")
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
