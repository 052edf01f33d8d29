"""Whether the memory of `artclf serve` grows: two hours' worth of requests, one a second, sent as
fast as they are answered.

    python benchmarks/soak.py EXPORT PICTURES [--data DATA] [--requests 7200] [--backend onnx]

Four clients send the pictures of a folder in turns, each on a connection that stays open: most alone,
every eighth request four in a form, every sixteenth at four times its size (up to 5,000 px), every
thirty-second a file that is cut in half. With --data the answers name the nearest paintings, whose
thumbnails every tenth request loads. Prints the memory, threads and open files of the server at the
start and after each quarter. Exit code 1 where a request was answered otherwise than it should be.
Linux only.
"""

import argparse
import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from PIL import Image
from serve import memory

from artclf.data.formats import IMAGE_SUFFIXES

CLIENTS = 4
QUARTERS = 4
DIFFERENT = 200  # pictures that are taken in turns
LARGEST = 5000  # px
BOUNDARY = "a-line-that-no-picture-holds"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path)
    parser.add_argument("pictures", type=Path, help="a folder of pictures to send")
    parser.add_argument("--data", type=Path, help="the data set of the nearest paintings")
    parser.add_argument("--requests", type=int, default=7200)
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()
    files = sorted(
        file for file in options.pictures.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES
    )
    bodies = [file.read_bytes() for file in files[:: max(1, len(files) // DIFFERENT)][:DIFFERENT]]
    command = [sys.executable, "-m", "artclf.cli", "serve", str(options.export), "--port", "0"]
    command += ["--rate", "0", "--backend", options.backend]
    if options.data:
        command += ["--data", str(options.data)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = int(re.search(r":(\d+)$", server.stdout.readline())[1])
        wrong = soak(server.pid, port, bodies, options.requests)
    finally:
        server.terminate()
        code = server.wait(60)
    print(f"its exit code: {code}; answers that were wrong: {wrong or 'none'}")
    sys.exit(1 if wrong or code else 0)


def soak(pid: int, port: int, bodies: list[bytes], requests: int) -> list[str]:
    """Send the requests and print a line a quarter; what was answered wrongly, in words."""
    statuses: Counter = Counter()
    wrong: list[str] = []
    print("requests  seconds  memory MB  peak MB  threads  open files")
    started = time.perf_counter()
    show(pid, 0, started)
    for quarter in range(QUARTERS):
        first = requests * quarter // QUARTERS
        last = requests * (quarter + 1) // QUARTERS
        threads = [
            threading.Thread(
                target=ask_many,
                args=(port, bodies, range(first + n, last, CLIENTS), statuses, wrong),
            )
            for n in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        show(pid, last, started)
    print(f"statuses: {dict(sorted(statuses.items()))}")
    return wrong


def show(pid: int, done: int, started: float):
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    print(
        f"{done:8} {time.perf_counter() - started:8.0f} {memory(pid, 'VmRSS'):>10} "
        f"{memory(pid, 'VmHWM'):>8} {threads:8} {files:11}",
        flush=True,
    )


def ask_many(port: int, bodies: list[bytes], numbers: range, statuses: Counter, wrong: list[str]):
    """Send the requests of these numbers on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for number in numbers:
        body, kind, expected = request(bodies, number)
        connection.request("POST", "/api/predict", body, {"Content-Type": kind})
        answer = connection.getresponse()
        content = answer.read()
        statuses[answer.status] += 1
        if answer.status not in expected:
            wrong.append(f"request {number}: {answer.status} {content[:100]!r}")
        elif answer.status == 200 and number % 10 == 0:
            load_thumbnails(connection, json.loads(content)["results"][0].get("nearest", []))
    connection.close()


def request(bodies: list[bytes], number: int) -> tuple[bytes, str, tuple[int, ...]]:
    """The body of a request, its content type, and the statuses that it may be answered with."""
    body = bodies[number % len(bodies)]
    if number % 32 == 31:
        return body[: len(body) // 2], "application/octet-stream", (200, 422)
    if number % 16 == 15:
        return enlarged(body), "image/jpeg", (200,)
    if number % 8 == 7:
        four = [bodies[(number + step) % len(bodies)] for step in range(4)]
        return form(four), f"multipart/form-data; boundary={BOUNDARY}", (200,)
    return body, "application/octet-stream", (200,)


def enlarged(body: bytes) -> bytes:
    with Image.open(io.BytesIO(body)) as image:
        factor = min(4, LARGEST / max(image.size))
        size = (max(1, round(factor * image.width)), max(1, round(factor * image.height)))
        large = image.convert("RGB").resize(size)
    stream = io.BytesIO()
    large.save(stream, "JPEG")
    return stream.getvalue()


def form(bodies: list[bytes]) -> bytes:
    parts = []
    for place, body in enumerate(bodies):
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{place}"'
        parts.append(head.encode() + b"\r\n\r\n" + body + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def load_thumbnails(connection: http.client.HTTPConnection, nearest: list[dict]):
    for one in nearest:
        if one["thumbnail"]:
            connection.request("GET", one["thumbnail"])
            connection.getresponse().read()


if __name__ == "__main__":
    os.environ.setdefault("ARTCLF_OFFLINE", "1")
    main()
