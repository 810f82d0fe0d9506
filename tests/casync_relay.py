# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Stands between a client of the casync protocol and its ssh::

    python casync_relay.py SSH LOG HOST COMMAND...

What the client says is passed on frame by frame, but for the end of its index: that waits until the
client has sent a chunk. A server that asks for chunks only after the end of the index gets none,
and both wait forever. The names of the client's frames are appended to the log.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

INDEX_END = 0x4F0932F1043718F5
CHUNK = 0x5213DD180A84BC8C
NAMES = {
    0x3C71D0948CA5FBEE: "HELLO",
    0xB32A91DD2B3E27F8: "INDEX",
    INDEX_END: "INDEX_EOF",
    CHUNK: "CHUNK",
}


def read(size: int) -> bytes:
    """Read so many bytes of what the client says; fewer at its end."""
    pieces = []
    while size and (piece := os.read(0, min(size, 1 << 20))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def main(ssh: str, log: str, *arguments: str) -> None:
    """Run as a program."""
    # casync's pipes don't block.
    os.set_blocking(0, True)
    os.set_blocking(1, True)
    child = subprocess.Popen([ssh, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    said = child.stdout

    def back() -> None:
        while data := os.read(said.fileno(), 1 << 16):
            os.write(1, data)

    copying = threading.Thread(target=back)
    copying.start()
    held, seen = b"", False
    with open(log, "a") as file:
        while len(head := read(16)) == 16:
            kind = int.from_bytes(head[8:], "little")
            frame = head + read(int.from_bytes(head[:8], "little") - 16)
            print(NAMES.get(kind, "other"), file=file, flush=True)
            if kind == INDEX_END and not seen:
                held = frame
                continue
            child.stdin.write(frame)
            if kind == CHUNK and not seen:
                seen = True
                child.stdin.write(held)
            child.stdin.flush()
    child.stdin.close()
    copying.join()
    child.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
