"""A stream of bytes that converts another one, block by block."""

import io
from typing import Any

BLOCK_BYTES = 1 << 20


class ConvertedStream(io.RawIOBase):
    """The bytes of a stream as `convert` returns them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._buffer = b""
        self._at_end = False

    def convert(self, block: bytes) -> bytes:
        """The bytes for the next block, which is empty once, at the end; what is incomplete waits for the next one."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._buffer and not self._at_end:
            block = self._stream.read(BLOCK_BYTES)
            self._at_end = not block
            self._buffer = self.convert(block)
        count = min(len(buffer), len(self._buffer))
        buffer[:count] = self._buffer[:count]
        self._buffer = self._buffer[count:]
        return count
