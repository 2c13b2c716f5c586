"""Speech from text with espeak-ng, through the library that the wheel `espeakng-loader` carries."""

from __future__ import annotations

import ctypes
import importlib
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from speechjepa.errors import DataError

SAMPLE_RATE = 16000
"""Rate of what `synthesise` returns unless told otherwise (Hz)."""
LOW_PITCH, MAX_PITCH_RANGE, MAX_RANGE_WHEN_LOW = 35, 70, 55
"""Beyond these espeak-ng may end the whole process (SIGSEGV): some of its voices, `rob` before all,
in Hebrew and Arabic. Found by trial."""

# Constants of espeak-ng's speak_lib.h.
_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_PHONEME_EVENTS = 0x0001
_UTF8 = 1
_END_PAUSE = 0x1000
_POSITION_CHARACTER = 1
_IPA = 2
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_PAUSE = b"_"
"""What the names of pauses begin with among the phonemes."""

# espeak-ng keeps everything in static variables: one synthesis at a time in a process.
_lock = threading.Lock()


class WordTime(NamedTuple):
    """When a word of the text is spoken."""

    start: float
    """Where its first sound begins (seconds from the start of the waveform)."""
    position: int
    """Index of its first character in the text."""
    length: int
    """Its number of characters."""
    end: float
    """Where its last sound ends, at a pause or at the next word (seconds)."""


class PhoneTime(NamedTuple):
    """When a phone is spoken; it lasts until the next starts."""

    start: float
    """Seconds from the start of the waveform."""
    phone: str
    """As espeak-ng calls it, in ASCII; empty = a pause."""


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Synthetic speech."""

    waveform: np.ndarray
    """(S,) float32 in [-1, 1]."""
    sample_rate: int
    """Hz."""
    words: list[WordTime]
    """Every word in the order of speaking; espeak-ng reads some pairs of words as one."""
    phones: list[PhoneTime]
    """Every phone and pause in the order of speaking."""


class _Heard(NamedTuple):
    """A word or phoneme that the engine tells of."""

    phoneme: bytes | None
    """None = a word begins."""
    position: int
    length: int
    milliseconds: int


class _EventId(ctypes.Union):
    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("unused", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


def synthesise(
    text: str,
    language: str,
    *,
    voice: str = "",
    rate: int = 160,
    pitch: int = 50,
    pitch_range: int = 50,
    volume: int = 100,
    formant_ratio: float = 1.0,
    sample_rate: int = SAMPLE_RATE,
    seed: int = 0,
) -> Speech:
    """Speak a text. The same arguments give the same samples, whatever was spoken before.

    Args:
        text: What to say; digits, if any, are read in the language.
        language: Code that espeak-ng knows (`espeak_languages()`), for example "en-us" or "fi".
        voice: Variant that changes the speaker (`espeak_voices()`); empty = the plain voice.
        rate: Words per minute, 80 to 450.
        pitch: 0 to 99; 50 is the voice's own.
        pitch_range: 0 (monotone) to 70 (to 55 where `pitch` is below 35); 50 is the voice's own.
        volume: 0 to 200; above 100 the peaks may clip.
        formant_ratio: Scales all frequencies, as the vocal tract's length does; the rate stays.
        sample_rate: Of the waveform returned (Hz).
        seed: Of the noise in the voice.

    Returns:
        The waveform, and when each word starts.

    Raises:
        DataError: `espeakng-loader` is not installed; the language or voice does not exist; a
            setting is outside its range; nothing audible came out.
    """
    import soxr

    _check_ranges(
        rate=(rate, 80, 450),
        pitch=(pitch, 0, 99),
        pitch_range=(pitch_range, 0, MAX_PITCH_RANGE if pitch >= LOW_PITCH else MAX_RANGE_WHEN_LOW),
        volume=(volume, 0, 200),
        formant_ratio=(formant_ratio, 0.7, 1.4),
    )
    name = _voice_name(language, voice)
    parameters = {
        _RATE: min(max(round(rate / formant_ratio), 80), 450),
        _PITCH: pitch,
        _RANGE: pitch_range,
        _VOLUME: volume,
    }
    blocks: list[bytes] = []
    events: list[_Heard] = []
    with _engine(blocks, events, seed) as (library, native_rate):
        _set_voice(library, name)
        for parameter, value in parameters.items():
            library.espeak_SetParameter(parameter, value, 0)
        status = _speak(library, text)
        if status != 0:
            raise DataError(f"espeak-ng failed with status {status} on {text!r}.")
    native = np.frombuffer(b"".join(blocks), dtype=np.int16)
    if not np.any(native):
        raise DataError(f"espeak-ng says nothing for {text!r} in {language!r}.")
    waveform = soxr.resample(
        native.astype(np.float32) / 32768.0, native_rate * formant_ratio, sample_rate
    )
    words = _word_times(events, 1000.0 * len(native) / native_rate, 1000.0 * formant_ratio)
    phones = _phone_times(events, 1000.0 * formant_ratio)
    waveform = np.clip(waveform, -1.0, 1.0)
    return Speech(waveform=waveform, sample_rate=sample_rate, words=words, phones=phones)


def _phone_times(events: list[_Heard], per_second: float) -> list[PhoneTime]:
    """Return each phone and pause; `per_second` as `_word_times`."""
    named = [(event.milliseconds / per_second, event.phoneme) for event in events]
    return [
        PhoneTime(start, "" if name.startswith(_PAUSE) else name.decode(errors="replace"))
        for start, name in named
        if name is not None
    ]


def _word_times(events: list[_Heard], total: float, per_second: float) -> list[WordTime]:
    """Return each word from its first sound to the pause or word behind its last one.

    Args:
        events: In the order of speaking.
        total: The end of the speech, on the clock of the events.
        per_second: What the clock of the events counts in a second of the result.
    """
    starts = [index for index, event in enumerate(events) if event.phoneme is None]
    words = []
    for first, behind in itertools.pairwise([*starts, len(events)]):
        word, sounds = events[first], events[first + 1 : behind]
        begin = next((s for s in sounds if s.phoneme and not s.phoneme.startswith(_PAUSE)), word)
        pauses = [
            s.milliseconds
            for s in sounds
            if s.phoneme and s.phoneme.startswith(_PAUSE) and s.milliseconds > begin.milliseconds
        ]
        end = events[behind].milliseconds if behind < len(events) else total
        end = min([*pauses, end])
        words.append(
            WordTime(
                begin.milliseconds / per_second, word.position - 1, word.length, end / per_second
            )
        )
    return words


def _check_ranges(**settings: tuple[float, float, float]) -> None:
    for setting, (value, low, high) in settings.items():
        if not low <= value <= high:
            raise DataError(f"`{setting}` must be {low:g} to {high:g}, but is {value:g} instead.")


def _speak(library: Any, text: str) -> int:
    """Have the library synthesise; return its status, 0 = well."""
    encoded = text.encode()
    size = ctypes.c_size_t(len(encoded) + 1)
    flags = _UTF8 | _END_PAUSE
    return int(library.espeak_Synth(encoded, size, 0, _POSITION_CHARACTER, 0, flags, None, None))


def phonemes(text: str, language: str) -> str:
    """Return how espeak-ng reads a text, in IPA. `(en)` marks a switch to another language.

    Raises:
        DataError: `espeakng-loader` is not installed, or the language does not exist.
    """
    name = _voice_name(language, "")
    with _engine([], [], 0) as (library, _):
        _set_voice(library, name)
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        buffer = ctypes.create_string_buffer(text.encode())
        rest = ctypes.c_void_p(ctypes.addressof(buffer))
        clauses = []
        while rest.value:
            clause = library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA)
            clauses.append((clause or b"").decode())
    return " ".join(clause.strip() for clause in clauses if clause.strip())


def espeak_languages() -> dict[str, str]:
    """Return the codes of the languages that espeak-ng speaks, with their names.

    Raises:
        DataError: `espeakng-loader` is not installed.
    """
    return {code: name for code, (_, name) in _language_table().items()}


@lru_cache(maxsize=1)
def _language_table() -> dict[str, tuple[str, str]]:
    """Return espeak-ng's identifier and name of every language code."""
    found: dict[str, tuple[str, str]] = {}
    with _engine([], [], 0) as (library, _):
        library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        voices = library.espeak_ListVoices(None)
        index = 0
        while voices[index]:
            voice = voices[index].contents
            # The first byte of `languages` is a priority, then comes the code.
            code = ctypes.string_at(voice.languages + 1).decode()
            found.setdefault(code, (voice.identifier.decode(), voice.name.decode().strip()))
            index += 1
    return found


@lru_cache(maxsize=1)
def espeak_voices() -> tuple[str, ...]:
    """Return the voice variants that every language can be spoken with.

    Raises:
        DataError: `espeakng-loader` is not installed.
    """
    folder = Path(_loader().get_data_path()) / "voices" / "!v"
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_file()))


@contextmanager
def _engine(
    blocks: list[bytes], events: list[_Heard], seed: int
) -> Iterator[tuple[ctypes.CDLL, int]]:
    """Lend a freshly loaded espeak-ng that appends 16-bit blocks, words and phonemes to the lists.

    A synthesis depends on what was said before it (flutter, echo and noise generators go on), and
    initialising again does not reset that. Loading the library anew does, in 2 milliseconds.
    """
    loader = _loader()

    def collect(samples: int | None, count: int, batch: ctypes._Pointer[_Event]) -> int:
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while batch[index].type != _EVENT_END:
            event = batch[index]
            if event.type in (_EVENT_WORD, _EVENT_PHONEME):
                phoneme = bytes(event.id.string) if event.type == _EVENT_PHONEME else None
                place = (event.text_position, event.length, event.audio_position)
                events.append(_Heard(phoneme, *place))
            index += 1
        return 0

    callback = _Callback(collect)
    with _lock:
        library = ctypes.CDLL(loader.get_library_path())
        data = os.fsencode(loader.get_data_path())
        options = _DONT_EXIT | _PHONEME_EVENTS
        native_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data, options)
        if native_rate <= 0:
            raise DataError("espeak-ng did not start.", path=loader.get_data_path())
        try:
            library.espeak_SetSynthCallback(callback)
            library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
            if os.name == "posix":
                # The Klatt voices take their noise from the C library's generator.
                ctypes.CDLL(None).srand(ctypes.c_uint(seed & 0xFFFFFFFF))
            yield library, native_rate
        finally:
            library.espeak_Terminate()
            if os.name == "posix":
                importlib.import_module("_ctypes").dlclose(library._handle)


def _voice_name(language: str, voice: str) -> bytes:
    """Return what espeak-ng calls a language spoken by a voice."""
    if language not in _language_table():
        raise DataError(
            f"espeak-ng does not speak {language!r}; it speaks {', '.join(_language_table())}."
        )
    if voice and voice not in espeak_voices():
        raise DataError(f"espeak-ng has no voice {voice!r}; it has {', '.join(espeak_voices())}.")
    identifier = _language_table()[language][0]
    return f"{identifier}+{voice}".encode() if voice else identifier.encode()


def _set_voice(library: ctypes.CDLL, name: bytes) -> None:
    if library.espeak_SetVoiceByName(name) != 0:
        raise DataError(f"espeak-ng cannot load its voice {name.decode()!r}.")


def _loader() -> ModuleType:
    try:
        return importlib.import_module("espeakng_loader")
    except ModuleNotFoundError as error:
        raise DataError(
            "Synthetic speech needs the package `espeakng-loader`: "
            "pip install 'speechjepa[synthetic]'."
        ) from error
