"""Small pictures, and how a browser sends them."""

import struct
import zlib


def png(shade, size=8):
    """A grey square."""
    rows = b"".join(b"\0" + bytes([shade] * size) for _ in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def multipart(files):
    """Content and its kind."""
    parts = [
        f'--XX\r\nContent-Disposition: form-data; name="f{number}"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + content
        + b"\r\n"
        for number, (name, content) in enumerate(files.items())
    ]
    return b"".join([*parts, b"--XX--\r\n"]), "multipart/form-data; boundary=XX"
