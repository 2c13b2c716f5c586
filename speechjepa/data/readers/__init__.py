"""Read any corpus as utterances; write the one manifest format."""

from speechjepa.data.readers.manifest import write_manifest
from speechjepa.data.readers.read import FORMATS, read_corpus

__all__ = ["FORMATS", "read_corpus", "write_manifest"]
