"""Metrics: what the server counts, for Prometheus. Addresses and names of files are not counted."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self):
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.registry = registry
        self.requests = Counter(
            "artclf_requests",
            "Requests by path, method and status.",
            ["path", "method", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "artclf_request_seconds",
            "Seconds from the whole request to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self.pictures = Counter(
            "artclf_pictures",
            "Pictures by outcome: sure, unsure, far (unlike all of training), rejected.",
            ["outcome"],
            registry=registry,
        )
        self.predicted = Counter(
            "artclf_predicted", "Pictures by their likeliest class.", ["period"], registry=registry
        )
        self.batches = Histogram(
            "artclf_batch_pictures", "Pictures in a batch.", buckets=SIZES, registry=registry
        )
        self.queue = Gauge("artclf_queue_pictures", "Pictures under way.", registry=registry)
        self.suggestions = Counter(
            "artclf_suggestions",
            "Pictures given to the collection by outcome: kept, known, full, busy.",
            ["outcome"],
            registry=registry,
        )
        self.reloads = Counter(
            "artclf_reloads",
            "New exports by outcome: taken, refused.",
            ["outcome"],
            registry=registry,
        )

    def count_result(self, result: dict):
        """Count one of the results of /api/predict."""
        if result["error"]:
            outcome = "rejected"
        elif result["far"]:
            outcome = "far"
        else:
            outcome = "sure" if result["sure"] else "unsure"
        self.pictures.labels(outcome).inc()
        if not result["error"]:
            self.predicted.labels(result["top"][0]["period"]).inc()

    def text(self) -> bytes:
        """All of them in the text format of Prometheus."""
        return generate_latest(self.registry)
