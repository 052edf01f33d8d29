"""What `artclf serve` answers to malformed bodies: counts of statuses, crashes, memory before and
after.

    python benchmarks/fuzz_server.py EXPORT [--number 10000] [--seed 0]

A server of its own on loopback gets mutated headers of eight formats, cut and random bytes,
pictures of huge dimensions, bombs, polyglots, broken multipart and broken HTTP, from eight clients
at once, while slow clients send a byte a second. Each must be answered with a status below 500 (or
501, 503), or closed where the client broke off, within a minute; afterwards a picture must be
answered as before. Exit code 1 where that isn't so.
"""

import argparse
import http.client
import io
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000")
CLIENTS = 8
SLOW = 10
HEADER = 200  # bytes that are changed most
BROKE_OFF = "closed"  # the client sent half a request


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path)
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="torch")
    options = parser.parse_args()
    command = [sys.executable, "-m", "artclf.cli", "serve", str(options.export), "--port", "0"]
    command += ["--rate", "0", "--backend", options.backend]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            failed = attack(server, options.number, options.seed)
        finally:
            server.terminate()
            code = server.wait(90)
        log.seek(0)
        tracebacks = log.read().count("Traceback")
    print(f"exit code of the server {code}, tracebacks in its log {tracebacks}")
    sys.exit(1 if failed or code or tracebacks else 0)


def attack(server, number: int, seed: int) -> int:
    """Send `number` requests; print what came of them, and return how many failed."""
    port = int(re.search(r":(\d+)$", server.stdout.readline())[1])
    good = picture("JPEG", 0)
    before_answer = predicted(port, good)
    for place in range(40):  # so that the memory that every server takes is taken
        send(port, request_of(picture(FORMATS[place % len(FORMATS)], place)))
    before = memory(server.pid)
    stop = threading.Event()
    slow = [threading.Thread(target=dribble, args=(port, stop), daemon=True) for _ in range(SLOW)]
    for thread in slow:
        thread.start()
    counts: Counter = Counter()
    longest = [0.0] * CLIENTS
    lock = threading.Lock()

    def client(place: int):
        for case in range(place, number, CLIENTS):
            kind, request = made(random.Random(seed * 10**9 + case))
            started = time.monotonic()
            status = send(port, request)
            longest[place] = max(longest[place], time.monotonic() - started)
            with lock:
                counts[kind, status] += 1

    clients = [threading.Thread(target=client, args=(place,)) for place in range(CLIENTS)]
    started = time.monotonic()
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    took = time.monotonic() - started
    stop.set()
    after = memory(server.pid)
    statuses: Counter = Counter()
    for (_, status), count in counts.items():
        statuses[status] += count
    print(f"{sum(statuses.values())} requests in {took:.0f} s, the longest {max(longest):.1f} s")
    for kind in sorted({kind for kind, _ in counts}):
        of_kind = {status: count for (name, status), count in counts.items() if name == kind}
        print(f"  {kind:12} {dict(sorted(of_kind.items(), key=str))}")
    print(f"statuses {dict(sorted(statuses.items(), key=str))}")
    print(
        f"resident memory before {before} MB, after {after} MB, peak {memory(server.pid, 'VmHWM')} MB"
    )
    is_same = predicted(port, good) == before_answer
    crashes = sum(count for status, count in statuses.items() if is_failure(status))
    crashes += server.poll() is not None
    print(f"crashes and hangs {crashes}, a good picture is answered as before: {is_same}")
    return crashes + (not is_same)


def is_failure(status) -> bool:
    if isinstance(status, int):
        return status >= 500 and status not in (501, 503)
    return status != BROKE_OFF


# requests


def made(chance: random.Random) -> tuple[str, bytes]:
    """A kind of malformed request, and its bytes."""
    kinds = {
        "mutated": (60, lambda: request_of(mutated(chance))),
        "cut": (8, lambda: request_of(cut(chance))),
        "random": (6, lambda: request_of(chance.randbytes(chance.randrange(1, 4000)))),
        "huge": (6, lambda: request_of(huge(chance))),
        "bomb": (1, lambda: request_of(bomb(chance))),
        "polyglot": (5, lambda: request_of(polyglot(chance))),
        "multipart": (9, lambda: broken_multipart(chance)),
        "http": (5, lambda: broken_http(chance)),
    }
    weights = [weight for weight, _ in kinds.values()]
    [kind] = chance.choices(list(kinds), weights)
    return kind, kinds[kind][1]()


PICTURES: dict[tuple[str, int], bytes] = {}


def picture(form: str, seed: int) -> bytes:
    """A small drawn picture."""
    key = (form, seed % 8)
    if key not in PICTURES:
        pixels = np.random.default_rng(key[1]).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).resize((96, 72)).save(stream, form)
        PICTURES[key] = stream.getvalue()
    return PICTURES[key]


def mutated(chance: random.Random) -> bytes:
    """A picture some of whose bytes, most of them in its header, are others."""
    content = bytearray(picture(chance.choice(FORMATS), chance.randrange(8)))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        end = min(len(content), HEADER if chance.random() < 0.8 else len(content))
        place = chance.randrange(end)
        change = chance.randrange(4)
        if change == 0:
            content[place] = chance.randrange(256)
        elif change == 1:
            content[place] ^= 1 << chance.randrange(8)
        elif change == 2:
            content[place : place + 4] = chance.choice(
                (b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff")
            )
        else:
            del content[place : place + chance.randrange(1, 9)]
            content = content or bytearray(b"x")
    return bytes(content)


def cut(chance: random.Random) -> bytes:
    content = picture(chance.choice(FORMATS), chance.randrange(8))
    return content[: chance.randrange(1, len(content))]


def huge(chance: random.Random) -> bytes:
    """A header that tells of huge dimensions, with few bytes after it."""
    side = chance.choice((7000, 30_000, 65_500))
    kind = chance.randrange(4)
    if kind == 0:
        return png(side, side, b"")
    if kind == 1:
        content = bytearray(picture("JPEG", 0))
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
        return bytes(content)
    if kind == 2:
        content = bytearray(picture("BMP", 0))
        content[18:26] = struct.pack("<ii", side, side)
        return bytes(content)
    content = bytearray(picture("GIF", 0))
    content[6:10] = struct.pack("<HH", side, side)
    return bytes(content)


def bomb(chance: random.Random) -> bytes:
    """A PNG of few kilobytes and up to 49 megapixels, or with much more data than it needs."""
    if chance.random() < 0.5:
        side = 6900
        return png(side, side, zlib.compress(bytes((side + 1) * side), 9), grey=True)
    return png(10, 10, zlib.compress(bytes(50_000_000), 9), grey=True)


def png(width: int, height: int, data: bytes, grey: bool = False) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 0 if grey else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def polyglot(chance: random.Random) -> bytes:
    """Bytes that are, or pretend to be, of two kinds."""
    good = picture(chance.choice(FORMATS), 0)
    return chance.choice(
        (
            good + b"<script>alert(1)</script>",
            b"GIF89a/*" + good + b"*/=1;",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
            b"%PDF-1.7\n" + good,
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
            b"PK\x03\x04" + good,
            b"RIFF\xff\xff\xff\xffWEBPVP8 " + good,
            b"II*\x00\x08\x00\x00\x00\xff\xff" + chance.randbytes(400),
            b"\x00\x00\x00\x1cftypavif" + chance.randbytes(200),
            b"#define x_width 99999\n#define x_height 99999\nstatic char x[] = {0};",
            b"P6 99999 99999 255\n",
        )
    )


def head(kind: str, *lines: str) -> bytes:
    first = ["POST /api/predict HTTP/1.1", "Host: localhost", f"Content-Type: {kind}"]
    return "\r\n".join([*first, "Connection: close", *lines, "", ""]).encode()


def request_of(body: bytes) -> bytes:
    return head("application/octet-stream", f"Content-Length: {len(body)}") + body


def broken_multipart(chance: random.Random) -> bytes:
    good = picture("PNG", 0)
    part = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body = chance.choice(
        (
            part + good,  # no end
            part[:20],
            b"--B--\r\n",
            b"--B\r\n\r\n" + good + b"\r\n--B--\r\n",
            part * 30 + good + b"\r\n--B--\r\n",
            b"--B\r\n" + b"X: y\r\n" * 3000 + b"\r\n\r\n--B--\r\n",
            b"--B\r\nContent-Disposition: form-data; name="
            + b"a" * 20_000
            + b"\r\n\r\nx\r\n--B--\r\n",
            part.replace(b"a.png", b"../../" + bytes(range(1, 32))) + good + b"\r\n--B--\r\n",
            b"\r\n" * 5000,
            (part + b"x\r\n") * 300 + b"--B--\r\n",
            chance.randbytes(3000),
        )
    )
    kind = chance.choice(
        (
            "multipart/form-data; boundary=B",
            "multipart/form-data",
            'multipart/form-data; boundary=""',
            "multipart/form-data; boundary=" + "B" * 300,
        )
    )
    return head(kind, f"Content-Length: {len(body)}") + body


def broken_http(chance: random.Random) -> bytes:
    good = picture("JPEG", 0)
    return chance.choice(
        (
            head("image/jpeg", f"Content-Length: {2 * len(good)}") + good,  # breaks off
            head("image/jpeg", "Content-Length: x") + good,
            head("image/jpeg", "Content-Length: 5", "Content-Length: 6") + good,
            head("image/jpeg", "Transfer-Encoding: chunked") + b"zz\r\n" + good,
            head("image/jpeg", "Transfer-Encoding: chunked") + b"ffffffffffffffff\r\n",
            head("image/jpeg", "Transfer-Encoding: chunked", "Content-Length: 3") + b"0\r\n\r\n",
            head("image/jpeg") + good,
            b"POST /api/predict HTTP/9.9\r\n\r\n",
            b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01" + chance.randbytes(200) + b"\r\n\r\n",
            chance.randbytes(300) + b"\r\n\r\n",
            b"GET /static/../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
    )


# the client


def send(port: int, request: bytes):
    """The status of the answer, `closed` where there is none, `hang` after a minute."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            answer.read()
            return answer.status
    except TimeoutError:
        return "hang"
    except (OSError, http.client.HTTPException):
        return BROKE_OFF


def dribble(port: int, stop: threading.Event):
    """Send a request at a byte a second, again and again."""
    request = request_of(picture("JPEG", 0))
    while not stop.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=90) as sock:
                for byte in request:
                    sock.sendall(bytes([byte]))
                    if stop.wait(1):
                        return
        except OSError:
            continue


def predicted(port: int, content: bytes) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/api/predict", content, {"Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    return answer.read() if answer.status == 200 else b""


def memory(pid: int, name: str = "VmRSS") -> str:
    """The memory of a process in MB, on Linux."""
    file = Path(f"/proc/{pid}/status")
    found = re.search(rf"{name}:\s+(\d+) kB", file.read_text()) if file.exists() else None
    return f"{int(found[1]) / 1024:.0f}" if found else "unknown"


if __name__ == "__main__":
    main()
