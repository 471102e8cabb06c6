"""None, gzip or zstd as one pair of calls: `compress` pieces, then `flush` the end."""

import importlib
import zlib
from types import ModuleType
from typing import Protocol, cast

from worker.sinks.protocol import SinkSettingsError

SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}

_GZIP_LEVEL = 6
_GZIP_FRAME = 31  # zlib's way to ask for a gzip header; it carries no name and no time, so repeats are equal
_ZSTD_LEVEL = 3


class Compressor(Protocol):
    """One compressed stream."""

    def compress(self, piece: bytes | bytearray, /) -> bytes | bytearray:
        """Return what can be written so far, possibly nothing."""

    def flush(self) -> bytes:
        """Return the end of the stream."""


class _Plain:
    """Not compressed."""

    __slots__ = ()

    def compress(self, piece: bytes | bytearray, /) -> bytes | bytearray:
        return piece

    def flush(self) -> bytes:
        return b""


def compressor(compression: str) -> Compressor:
    """Start a stream. Raises SinkSettingsError for an unknown name or a missing package."""
    match compression:
        case "none":
            return _Plain()
        case "gzip":
            return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FRAME)
        case "zstd":
            stream = _zstandard().ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
            return cast("Compressor", stream)
        case _:
            raise SinkSettingsError(f"unknown compression {compression!r}: choose one of {', '.join(SUFFIXES)}")


def _zstandard() -> ModuleType:
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise SinkSettingsError("compression 'zstd' needs a package: pip install 'batchmill[zstd]'") from error
