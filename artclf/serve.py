"""Step serve: the classifier behind a page and a JSON API, for people and programs.

Reads `EXPORT/`, and with `data` the catalogue and the pictures of `DATA`, for the nearest paintings.
Uploads stay in memory; with `collect`, those that people agree to give are written to a data set, as
suggestions for its review. Needs the extra `serve`. Notebook: `06_serve`; more in `docs/serve.md`.
"""

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import artclf
from artclf.answers import onnx
from artclf.base import settings
from artclf.base.extras import require
from artclf.base.machine import limit_freed_memory
from artclf.data.suggestions import Suggestions
from artclf.data.web import WebPictures
from artclf.server.app import Options, create_app, reload_export
from artclf.server.limits import Limits
from artclf.server.metrics import Metrics
from artclf.server.running import Server
from artclf.server.security import Security
from artclf.server.served import Current, Served, Settings

BACKENDS = ("auto", *artclf.BACKENDS)
URL_SECONDS = 20  # that fetching a picture may take
LOG = logging.getLogger("artclf.server")


class Service:
    """A server for the export in folder `out`, which listens from now on; `url` is its address.

    `backend` computes: `torch`, `onnx`, `onnx-int8`, or `auto`, which takes onnx where the export
    has it. `data` is the data set that the nearest paintings are shown from. `min_probability` is
    from when on it is sure; by default, from where four answers in five were right on valid. `urls`
    lets visitors give URLs. `collect` is the data set that they may give pictures to, see
    `data.suggestions`; it needs the classes of the network. See `Limits` and `Security` for the
    rest. Raises SettingError for settings that make no sense or are unsafe, StepError where it
    can't listen, and what `artclf.load` and `Suggestions` raise.
    """

    def __init__(
        self,
        out,
        data=None,
        *,
        backend: str = "auto",
        port: int = 8000,
        min_probability: float | None = None,
        urls: bool = False,
        collect=None,
        proxy: str | None = None,
        limits: Limits | None = None,
        security: Security | None = None,
    ):
        limit_freed_memory()  # before there are threads
        settings.check(port=port)
        settings.check_choice("backend", backend, BACKENDS)
        if min_probability is not None:
            settings.check(min_probability=min_probability)
        if urls:
            require("train", "aiohttp", "protego", "yarl")
        limits = limits or Limits()
        security = security or Security()
        self.metrics = Metrics()
        self._suggestions = None
        if collect is not None:
            self._suggestions = Suggestions(collect, limits.suggestions, limits.suggestion_bytes)
        self._web = _web(limits) if urls else None
        how = Settings(
            backend=_backend(out, backend),
            data=Path(data) if data is not None else None,
            min_probability=min_probability,
            max_pixels=limits.max_pixels,
            seconds=limits.seconds,
        )
        self.current = Current(lambda: self._load(out, how))
        options = Options(
            limits, security, self._web, self._suggestions, lambda: self._server.is_stopping()
        )
        app = create_app(self.current, self.metrics, options)
        self._server = Server(app, limits, security, port, proxy)
        self.url = self._server.url
        self.has_ended = threading.Event()

    def _load(self, out, how: Settings) -> Served:
        served = Served(out, how, self.metrics.batches.observe)
        if self._suggestions is not None:
            try:
                self._suggestions.check_classes(served.vocab)
            except BaseException:
                served.close()
                raise
        return served

    def run(self):
        """Answer until `stop`; requests under way are answered then, too."""
        try:
            self._server.run()
        finally:
            self.current.served.close()
            if self._web is not None:
                self._web.__exit__(None, None, None)
            self.has_ended.set()

    def stop(self):
        """Let `run` end, from any thread or signal handler."""
        self._server.stop()

    def reload(self):
        """Take in the export that lies in the folder now; where it is broken, a line says why and
        the old one goes on.
        """
        try:
            served = reload_export(self.current, self.metrics)
            LOG.info("took in export %s", served.version)
        except Exception as error:  # noqa: BLE001 (whatever is wrong with the new, the old goes on)
            LOG.error("the new export is not taken, the old one goes on: %s", error)


def start(out, data=None, **options) -> Service:
    """A `Service` that answers in a thread until its `stop`, on a free port unless `port` is given:
    for notebooks.

    `options` are the other arguments of `Service`.
    """
    service = Service(out, data, **{"port": 0, **options})
    threading.Thread(target=service.run, name="server", daemon=True).start()
    return service


@contextmanager
def running(out, data=None, **options) -> Iterator[Service]:
    """A `Service` of `start` that answers while the `with` block lasts."""
    service = start(out, data, **options)
    try:
        yield service
    finally:
        service.stop()
        service.has_ended.wait()


def run(out, data=None, **options):
    """Serve the export in folder `out` until the process is told to stop (SIGTERM, Ctrl+C); SIGHUP
    takes in a new export.

    `options` are those of `Service`, which says what is raised. Prints the address, and a line a
    request on standard error.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # the queue has limits and a gauge
    service = Service(out, data, **options)
    _handle_signals(service)
    served = service.current.served
    print(
        f"Serving {served.facts['name']} ({served.settings.backend}) at {service.url}", flush=True
    )
    if served.neighbours is None:
        print(f"No nearest paintings: {served.without_neighbours}", flush=True)
    if options.get("collect") is not None:
        print(
            f"People may give pictures to {options['collect']}: `artclf review --data "
            f"{options['collect']}` lists them",
            flush=True,
        )
    service.run()
    print("Stopped.", flush=True)


def allowed_limits(**limits) -> Limits:
    """`Limits` with those of `limits` that are not None, and a burst that a request fits in."""
    given = {name: value for name, value in limits.items() if value is not None}
    return Limits(**given, burst=max(Limits.burst, given.get("pictures", 0)))


def _handle_signals(service: Service):
    for name in ("SIGTERM", "SIGINT"):
        signal.signal(getattr(signal, name), lambda *_: service.stop())
    if hasattr(signal, "SIGHUP"):
        signal.signal(
            signal.SIGHUP, lambda *_: threading.Thread(target=service.reload, daemon=True).start()
        )


def _backend(out, backend: str) -> str:
    if backend != "auto":
        return backend
    with suppress(ImportError):
        require("onnx", "onnxruntime")
        if (Path(out) / onnx.FLOAT).exists():
            return "onnx"
    return "torch"


def _web(limits: Limits) -> WebPictures:
    return WebPictures(
        max_bytes=limits.max_bytes, max_pixels=limits.max_pixels, deadline=URL_SECONDS
    )


def origins(texts: Sequence[str] | None) -> tuple[str, ...]:
    """Origins without a slash at their end, which browsers don't send."""
    return tuple(text.rstrip("/") for text in texts or ())
