"""How fast `artclf serve` answers 1, 8 and 32 clients on loopback, beside the bare network.

    python benchmarks/serve.py EXPORT PICTURES [--backend onnx] [--seconds 10] [--rounds 3]

Each client sends a picture, waits for the answer, and sends the next one, on a connection that
stays open. The bare network computes pixels that are decoded already, in batches as large as there
are clients, in this process, while the server is idle. Both take turns. `share` is the requests a
second beside the bare network's pictures a second.
"""

import argparse
import http.client
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np

import artclf
from artclf.answers import inputs
from artclf.data.formats import IMAGE_SUFFIXES

CLIENTS = (1, 8, 32)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path)
    parser.add_argument("pictures", type=Path, help="a folder of pictures to send")
    parser.add_argument("--backend", default="torch", choices=list(artclf.BACKENDS))
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    files = sorted(
        file for file in options.pictures.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES
    )
    bodies = [file.read_bytes() for file in files[:: max(1, len(files) // 64)][:64]]
    classifier = artclf.load(options.export, backend=options.backend)
    started = time.perf_counter()
    pixels = np.stack([inputs.pixels(body, classifier.config) for body in bodies])
    decoding = (time.perf_counter() - started) / len(bodies)
    print(f"{len(bodies)} pictures, {decoding * 1000:.1f} ms to decode one, {options.backend}")
    with_server(options, classifier, bodies, pixels)


def with_server(options, classifier, bodies: list[bytes], pixels: np.ndarray):
    command = [sys.executable, "-m", "artclf.cli", "serve", str(options.export), "--port", "0"]
    command += ["--rate", "0", "--backend", options.backend]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = int(re.search(r":(\d+)$", server.stdout.readline())[1])
        rows = {clients: [] for clients in CLIENTS}
        bare = {clients: [] for clients in CLIENTS}
        resident = []
        for _ in range(options.rounds):
            for clients in CLIENTS:
                bare[clients].append(batch_seconds(classifier, pixels, clients))
                rows[clients].append(load(port, bodies, clients, options.seconds))
            resident.append(memory(server.pid, "VmRSS"))
        peak = memory(server.pid, "VmHWM")
    finally:
        server.terminate()
        server.wait(60)
    print("clients  requests/s  p50 ms  p99 ms  bare batch ms  bare pictures/s  share  p99 / bare")
    for clients in CLIENTS:
        rates, p50s, p99s = zip(*rows[clients], strict=True)
        batch = median(bare[clients])
        rate, p50, p99 = median(rates), median(p50s), median(p99s)
        print(
            f"{clients:7} {rate:11.1f} {1000 * p50:7.0f} {1000 * p99:7.0f} {1000 * batch:14.0f} "
            f"{clients / batch:16.1f} {rate * batch / clients:6.2f} {p99 / batch:11.2f}"
        )
    print(f"memory of the server after each round: {', '.join(resident)} MB, at its peak {peak} MB")
    print(f"its exit code: {server.returncode}")


def batch_seconds(classifier, pixels: np.ndarray, size: int, repeats: int = 5) -> float:
    """The median seconds of a forward pass of `size` pictures."""
    batch = pixels[np.arange(size) % len(pixels)]
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        classifier.answer(batch)
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])


def load(
    port: int, bodies: list[bytes], clients: int, seconds: float
) -> tuple[float, float, float]:
    """Requests a second, and the median and the 99th percentile of their seconds."""
    end = time.perf_counter() + seconds
    times: list[list[float]] = [[] for _ in range(clients)]

    def client(number: int):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        place = number
        while time.perf_counter() < end:
            body = bodies[place % len(bodies)]
            started = time.perf_counter()
            connection.request(
                "POST", "/api/predict?nearest=0", body, {"Content-Type": "application/octet-stream"}
            )
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}")
            times[number].append(time.perf_counter() - started)
            place += clients
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    every = np.concatenate(times)
    return len(every) / took, float(np.median(every)), float(np.quantile(every, 0.99))


def memory(pid: int, name: str) -> str:
    """A figure of a process's memory in MB, on Linux: `VmRSS` now, `VmHWM` at its peak."""
    file = Path(f"/proc/{pid}/status")
    found = re.search(rf"{name}:\s+(\d+) kB", file.read_text()) if file.exists() else None
    return f"{int(found[1]) / 1024:.0f}" if found else "unknown"


if __name__ == "__main__":
    os.environ.setdefault("ARTCLF_OFFLINE", "1")
    main()
