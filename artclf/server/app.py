"""App: the page and the JSON API, as a Flask application.

Reads what is asked; uploads stay in memory, but for those that somebody agrees to give to a data set
(`data.suggestions`), where the operator collects them.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as NoAnswerYet
from dataclasses import asdict, dataclass, field
from io import BytesIO
from math import ceil

from flask import Flask, Response, abort, g, jsonify, render_template, request
from flask import Request as FlaskRequest
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from artclf.base.errors import InputError
from artclf.data.intake import Failure
from artclf.data.pictures import Rejected
from artclf.data.suggestions import Full, Occupied, Suggestions
from artclf.data.web import WebPictures
from artclf.server.limits import Buckets, Busy, Limits, Queue
from artclf.server.metrics import Metrics
from artclf.server.openapi import description
from artclf.server.security import Security
from artclf.server.served import NEAREST, Current, NoSaliency

LOG = logging.getLogger("artclf.server")
OPEN = ("/", "/healthz", "/readyz")  # paths that need no token, beside the page's own files
MOST_NEAREST = 24
TEXT_BYTES = 1 << 20  # of the fields of a form that are no files
RAW_TYPES = ("application/octet-stream", "image/")


class Request(FlaskRequest):
    """A request whose files stay in memory; werkzeug would write larger ones to the disk."""

    def _get_file_stream(
        self, total_content_length, content_type, filename=None, content_length=None
    ):
        return BytesIO()


class OrderedJson(DefaultJSONProvider):
    """JSON with the classes in their own order."""

    sort_keys = False


@dataclass
class Options:
    """What the operator allows, see step `serve`. `web` fetches URLs, None where none are taken;
    `suggestions` keeps what people give, None where nothing is kept.
    """

    limits: Limits = field(default_factory=Limits)
    security: Security = field(default_factory=Security)
    web: WebPictures | None = None
    suggestions: Suggestions | None = None
    is_stopping: Callable[[], bool] = lambda: False


def create_app(current: Current, metrics: Metrics, options: Options) -> Flask:
    """The application that answers for `current`."""
    limits, security = options.limits, options.security
    app = Flask(__name__)
    app.request_class = Request
    app.json = OrderedJson(app)
    app.config.update(
        MAX_CONTENT_LENGTH=limits.request_bytes,
        MAX_FORM_MEMORY_SIZE=TEXT_BYTES,
        MAX_FORM_PARTS=limits.pictures + 10,
    )
    queue = Queue(limits.queue)
    metrics.queue.set_function(lambda: queue.under_way)
    buckets = Buckets(limits.rate, limits.burst)

    @app.before_request
    def admit():
        g.started = time.perf_counter()
        host = request.headers.get("Host", "")
        if not security.knows_host(host):
            abort(
                400,
                "the host of this address is not this server's: its operator may name it with --allow-host",
            )
        origin = request.headers.get("Origin", "")
        if request.method == "OPTIONS" and origin in security.cors:
            return Response(status=204)
        if request.method == "POST":
            if not security.knows_origin(origin, host):
                abort(403, "a page of another origin may not ask this server")
            _wait_for_turn(1)
        is_open = request.path in OPEN or request.endpoint == "static"
        authorization = request.headers.get("Authorization", "")
        is_needed = not is_open and security.needs_token(request.path)
        if is_needed and not security.knows_token(authorization):
            abort(401, "this server needs a token: send the header Authorization: Bearer TOKEN")
        return None

    def _wait_for_turn(tokens: int):
        seconds = buckets.take(request.remote_addr or "", tokens)
        if seconds:
            raise Refused(429, "too many pictures from this address: wait", seconds)

    @app.get("/")
    def page():
        return render_template("index.html")

    @app.get("/healthz")
    def healthz():
        return jsonify(status="ok")

    @app.get("/readyz")
    def readyz():
        if options.is_stopping():
            raise Refused(503, "the server is stopping", 5)
        return jsonify(status="ready")

    @app.get("/metrics")
    def show_metrics():
        return Response(metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/api/openapi.json")
    def openapi():
        classes = len(current.served.vocab)
        needs_token = security.needs_token(request.path)
        return jsonify(description(limits, classes, needs_token))

    @app.get("/api/model")
    def model():
        limits_told = {**asdict(limits), "request_bytes": limits.request_bytes}
        return jsonify(
            {
                **current.served.facts,
                "urls": options.web is not None,
                "collects": options.suggestions is not None,
                "limits": limits_told,
            }
        )

    @app.post("/api/predict")
    def predict():
        served = current.served
        k = _whole_number("k", len(served.vocab), 1, len(served.vocab))
        nearest = _whole_number("nearest", NEAREST, 0, MOST_NEAREST)
        uploads = _uploads(options.web, limits)
        _wait_for_turn(len(uploads) - 1)
        with queue.places(len(uploads)):
            results = served.answers(_fetched(uploads, options.web), k, nearest)
        for result in results:
            metrics.count_result(result)
        status = 422 if all(result["error"] for result in results) else 200
        body = {"model": served.facts["version"], "results": results}
        if status == 422:
            body["error"] = results[0]["error"]
        return jsonify(body), status

    @app.post("/api/saliency")
    def saliency():
        served = current.served
        uploads = _uploads(options.web, limits)
        if len(uploads) != 1:
            abort(400, f"{len(uploads)} pictures: a map is drawn for one")
        with queue.places(1):
            [(_, content)] = _fetched(uploads, options.web)
            try:
                if isinstance(content, Rejected):
                    raise content
                png = served.saliency(content, request.args.get("period"))
            except NoSaliency as error:
                abort(501, str(error))
            except (Rejected, InputError) as error:
                abort(422, str(error))
        return Response(png, content_type="image/png")

    @app.post("/api/suggest")
    def suggest():
        if options.suggestions is None:
            abort(403, "this server keeps no pictures: its operator may turn that on by --collect")
        if request.args.get("agree") != "yes":
            abort(400, "nothing is kept without agreement: /api/openapi.json says to what")
        served = current.served
        period = request.args.get("period") or None
        if period is not None and period not in served.vocab:
            abort(422, f"{period[:60]!r}: no class of this network")
        uploads = _uploads(None, limits, takes_urls=False)
        if len(uploads) != 1:
            abort(400, f"{len(uploads)} pictures: give one at a time")
        [(_, content)] = uploads
        assert isinstance(content, bytes)  # no URL was taken
        with queue.places(1):
            [result] = served.answers([("picture", content)], 1, 0)
        if result["error"]:
            abort(422, result["error"])
        likeliest = result["top"][0]
        try:
            receipt = options.suggestions.add(
                content, period, likeliest["period"], likeliest["probability"]
            )
        except (Failure, InputError) as error:
            abort(422, str(error))
        except Full as error:
            metrics.suggestions.labels("full").inc()
            abort(409, str(error))
        except Occupied as error:
            metrics.suggestions.labels("busy").inc()
            raise Refused(503, "the collection is being worked on: come back", 10) from error
        metrics.suggestions.labels("kept" if receipt.is_new else "known").inc()
        return jsonify(asdict(receipt)), 201 if receipt.is_new else 200

    @app.get("/api/thumbnails/<version>/<int:place>")
    def thumbnail(version: str, place: int):
        served = current.served
        jpeg = None
        if version == served.facts["version"] and served.neighbours is not None:
            jpeg = served.neighbours.thumbnail(place)
        if jpeg is None:
            abort(404, "no such picture")
        response = Response(jpeg, content_type="image/jpeg")
        response.headers["Cache-Control"] = "private, max-age=86400"
        return response

    @app.post("/api/reload")
    def reload():
        if not security.token:
            abort(403, "this server has no token: start it with one, or send it SIGHUP")
        try:
            reload_export(current, metrics)
        except Exception as error:  # noqa: BLE001 (whatever is wrong with the new, the old goes on)
            abort(409, f"the new export is not taken, the old one goes on: {error}")
        return model()

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException):
        response = jsonify(error=error.description)
        response.status_code = error.code or 500
        if error.code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if isinstance(error, MethodNotAllowed):
            response.headers["Allow"] = ", ".join(error.valid_methods or ())
        return response

    @app.errorhandler(500)
    def fail(error):  # Flask has logged it
        return jsonify(error="an error in the server: its log says more"), 500

    @app.errorhandler(Refused)
    def come_back(error: Refused):
        response = jsonify(error=str(error))
        response.status_code = error.status
        response.headers["Retry-After"] = str(max(1, ceil(error.seconds)))
        return response

    @app.errorhandler(Busy)
    def busy(error: Busy):
        return come_back(Refused(503, "too many pictures are under way: come back", error.seconds))

    @app.errorhandler(NoAnswerYet)
    def slow(error: NoAnswerYet):
        return come_back(Refused(503, f"no answer within {limits.seconds:g} s: come back", 5))

    @app.after_request
    def finish(response: Response):
        response.headers.update(security.headers())
        response.headers.update(security.cors_headers(request.headers.get("Origin", "")))
        response.headers.setdefault("Cache-Control", "no-store")
        seconds = time.perf_counter() - g.started
        path = request.url_rule.rule if request.url_rule else "other"
        method = request.method if request.method in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        metrics.requests.labels(path, method, response.status_code).inc()
        metrics.seconds.labels(path).observe(seconds)
        LOG.info(
            "%s %s %s %s %.0f ms",
            request.remote_addr,
            method,
            path,
            response.status_code,
            1000 * seconds,
        )
        return response

    return app


class Refused(Exception):
    """An answer with `status` that says when to come back, in `seconds`."""

    def __init__(self, status: int, text: str, seconds: float):
        super().__init__(text)
        self.status = status
        self.seconds = seconds


def reload_export(current: Current, metrics: Metrics):
    """`Current.reload`, counted."""
    try:
        served = current.reload()
    except BaseException:
        metrics.reloads.labels("refused").inc()
        raise
    metrics.reloads.labels("taken").inc()
    return served


def _whole_number(name: str, default: int, lowest: int, highest: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or not lowest <= int(text[:9]) <= highest:
        abort(400, f"{name} is {text[:20]!r}: take a whole number from {lowest} to {highest}")
    return int(text)


def _uploads(
    web: WebPictures | None, limits: Limits, takes_urls: bool = True
) -> list[tuple[str, bytes | str]]:
    """The pictures of this request: pairs of a name and the bytes, or a URL."""
    if request.content_length is None:
        abort(411, "the request doesn't say how long it is: send Content-Length")
    kind = request.mimetype
    uploads: Sequence[tuple[str, bytes | str]]
    if kind == "multipart/form-data":
        files = [file for _, file in request.files.items(multi=True)]
        named = [(file.filename or "", file.stream.read()) for file in files]
        uploads = [(name or "picture", content) for name, content in named if name or content]
    elif kind == "application/json" and takes_urls:
        uploads = [(url, url) for url in _urls(web)]
    elif kind.startswith(RAW_TYPES):
        content = request.get_data(cache=False)
        uploads = [("picture", content)] if content else []
    else:
        abort(
            415,
            f"{kind[:60] or 'no content type'}: send a picture as image/*, or pictures as "
            "multipart/form-data",
        )
    if not uploads:
        abort(400, "no picture in the request")
    if len(uploads) > limits.pictures:
        abort(413, f"{len(uploads)} pictures in a request: send {limits.pictures} at most")
    for name, upload in uploads:
        if len(upload) > limits.max_bytes:
            abort(413, f"{name[:60]} is over {limits.max_bytes / 2**20:g} MB")
    return list(uploads)


def _urls(web: WebPictures | None) -> list[str]:
    if web is None:
        abort(403, "this server takes no URLs: its operator may turn them on with --urls")
    content = request.get_json()
    urls = content.get("urls") if isinstance(content, dict) else None
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        abort(400, 'send {"urls": [...]}')
    for url in urls:
        if not url.lower().startswith(("http://", "https://")):
            abort(400, f"{url[:60]!r} is no http(s) URL")
    return urls


def _fetched(
    uploads: Sequence[tuple[str, bytes | str]], web: WebPictures | None
) -> list[tuple[str, bytes | Rejected]]:
    """The bytes behind each upload, or why there are none."""
    pictures: list[tuple[str, bytes | Rejected]] = []
    for name, content in uploads:
        if isinstance(content, str):
            try:
                assert web is not None  # `_urls` takes none without it
                pictures.append((name, web.read(content)))
            except Rejected as error:
                pictures.append((name, error))
        else:
            pictures.append((name, content))
    return pictures
