"""Receive a form with a file: the file goes to disk as it comes, and every limit holds meanwhile.

Starlette would read the whole form before the endpoint could refuse it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from speechjepa.serving.answers import ApiError, ClientGone

logger = logging.getLogger(__name__)

MAX_FIELDS = 100
"""Parts of a form; more are refused."""
MAX_FIELD_BYTES = 1 << 16
"""Bytes of a field that is no file."""
_DRAIN_BYTES = 1 << 24
_DRAIN_SECONDS = 3.0
"""How much of a refused request is still read, so that its sender gets to see the answer."""


@dataclass
class Upload:
    """A form that was received; its folder is to be removed with `remove`."""

    folder: Path
    fields: dict[str, list[str]] = field(default_factory=dict)
    """Values of each field, in order; `[]` at the end of a name is dropped."""
    path: Path | None = None
    """Where the file lies, under a name of our own."""
    filename: str = ""
    """What the sender called it, without folders."""

    def remove(self) -> None:
        """Delete what was received; doing it twice does no harm."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def last(self, name: str) -> str | None:
        """Return a field's value; None where it is missing or empty."""
        values = self.fields.get(name) or [""]
        return values[-1].strip() or None


async def receive_upload(
    request: Request, parent: Path, *, max_bytes: int, idle_seconds: float
) -> Upload:
    """Receive a form, its field `file` to disk.

    Args:
        request: With the body still to be read.
        parent: Folder to make a folder in.
        max_bytes: Limit of the whole body, whatever its header says.
        idle_seconds: Limit of the time without a byte (seconds).

    Raises:
        ApiError: It is no such form (415, 400), is too large (413), does not come (408), or there
            is no space for it (507). Nothing stays on disk.
        ClientGone: The sender went away.
    """
    upload = Upload(Path(tempfile.mkdtemp(prefix="upload-", dir=parent)))
    chunks = _chunks(request, idle_seconds)
    try:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and len(declared) < 19 and int(declared) > max_bytes:
            raise _too_large(max_bytes)
        with _FormReader(request.headers.get("content-type", ""), upload) as reader:
            num_bytes = 0
            async for chunk in chunks:
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise _too_large(max_bytes)
                reader.feed(chunk)
            reader.finish()
    except ApiError:
        upload.remove()
        if "expect" not in request.headers:  # who waits for "100 Continue" reads before it sends
            await _drain(chunks)
        raise
    except OSError as error:
        upload.remove()
        logger.error("an upload cannot be written below %s: %s", parent, error)
        message = "the server cannot keep the recording; its disk may be full"
        raise ApiError(507, message, code="no_space") from error
    except BaseException:
        upload.remove()
        raise
    return upload


async def receive_body(request: Request, *, max_bytes: int, idle_seconds: float) -> bytes:
    """Return a body that fits in memory; raises as `receive_upload`."""
    body = bytearray()
    async for chunk in _chunks(request, idle_seconds):
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


async def _chunks(request: Request, idle_seconds: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), idle_seconds)
        except StopAsyncIteration:
            return
        except ClientDisconnect:
            raise ClientGone from None
        except TimeoutError:
            message = f"nothing came for {idle_seconds:g} s; send the request again"
            raise ApiError(408, message, code="timeout") from None


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    num_bytes, started = 0, monotonic()
    with suppress(ApiError, ClientGone):
        async for chunk in chunks:
            num_bytes += len(chunk)
            if num_bytes > _DRAIN_BYTES or monotonic() - started > _DRAIN_SECONDS:
                return


def _too_large(max_bytes: int) -> ApiError:
    message = f"the request is larger than {max_bytes / 1e6:g} MB, this server's limit"
    return ApiError(413, message, param="file", code="file_too_large")


class _FormReader:
    """Take multipart/form-data piece by piece."""

    def __init__(self, content_type: str, upload: Upload) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            shown = kind.decode("latin-1")[:100] or "nothing"
            message = f"the body must be multipart/form-data, but is {shown} instead"
            raise ApiError(415, message)
        if not options.get(b"boundary"):
            raise ApiError(400, "the content type multipart/form-data lacks its boundary")
        self._upload = upload
        self._num_fields = 0
        self._ended = False
        self._file: IO[bytes] | None = None
        self._header = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._field = bytearray()
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": lambda data, a, b: self._header.extend(data[a:b]),
                    "on_header_value": lambda data, a, b: self._value.extend(data[a:b]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._take,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise ApiError(400, f"the form cannot be read: {error}") from error

    def __enter__(self) -> _FormReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise ApiError(400, f"the form cannot be read: {error}") from error

    def finish(self) -> None:
        if not self._ended:
            raise ApiError(400, "the form is cut off: its closing boundary is missing")

    def _begin_part(self) -> None:
        self._num_fields += 1
        if self._num_fields > MAX_FIELDS:
            raise ApiError(400, f"the form has more than {MAX_FIELDS} fields")
        self._headers = {}
        self._field = bytearray()

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        kind, options = parse_options_header(
            self._headers.get(b"content-disposition", b"").decode("latin-1")
        )
        if kind != b"form-data" or b"name" not in options:
            raise ApiError(400, "a field of the form has no name")
        self._name = options[b"name"].decode("utf-8", "replace").removesuffix("[]")
        if self._name != "file":
            return
        if self._upload.path is not None:
            raise ApiError(400, "the form has more than one `file`", param="file")
        if b"filename" not in options:
            raise ApiError(400, "`file` must be a file, but is a plain field", param="file")
        self._upload.filename = safe_name(options[b"filename"].decode("utf-8", "replace"))
        # Only the suffix is taken from outside: it helps to explain what cannot be decoded.
        suffix = re.search(r"\.[a-z0-9]{1,5}$", self._upload.filename.lower())
        self._upload.path = self._upload.folder / f"upload{suffix[0] if suffix else ''}"
        self._file = open(self._upload.path, "xb")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        self._field.extend(data[start:end])
        if len(self._field) > MAX_FIELD_BYTES:
            message = f"the field is longer than {MAX_FIELD_BYTES} bytes"
            raise ApiError(400, message, param=self._name[:100])

    def _end_part(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            return
        try:
            value = self._field.decode("utf-8")
        except UnicodeDecodeError:
            raise ApiError(400, "the field is not UTF-8", param=self._name[:100]) from None
        self._upload.fields.setdefault(self._name, []).append(value)

    def _end(self) -> None:
        self._ended = True


def safe_name(name: str) -> str:
    """Return the last part of a path, without what no file name should hold."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(c for c in last if c.isprintable() and c not in '<>:"|?*').strip(". ")[:200]
