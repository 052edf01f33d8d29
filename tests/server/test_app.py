"""The API, asked by Flask's test client, of a classifier without a network: what it answers, what it
refuses with which status, whom it answers.
"""

import io
import json
import re
import sys
import threading

import numpy as np
import pytest
from filelock import FileLock
from made_pictures import encoded, noise
from made_served import VOCAB, Brightness
from PIL import Image

from artclf import download
from artclf.base.errors import SettingError
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.suggestions import Suggestions
from artclf.server.app import Options, create_app
from artclf.server.limits import Limits
from artclf.server.metrics import Metrics
from artclf.server.security import Security
from artclf.server.served import Current, Served, Settings

TOKEN = "a token of the tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def grey(level: int) -> bytes:
    return encoded(np.full((20, 30, 3), level, np.uint8))


DARK, MIDDLE, BRIGHT, BETWEEN = grey(0), grey(128), grey(255), grey(66)


@pytest.fixture
def client(tmp_path):
    """A function that makes a client of a server with these limits, security and other options."""

    def make(limits=None, security=None, classifier=None, web=None, suggestions=None, **settings):
        metrics = Metrics()
        limits = limits or Limits(rate=0)
        defaults = {"min_probability": 0.6, "max_pixels": limits.max_pixels}
        settings = Settings(**{**defaults, **settings})
        current = Current(
            lambda: Served(tmp_path, settings, metrics.batches.observe, classifier or Brightness())
        )
        options = Options(limits, security or Security(), web, suggestions)
        app = create_app(current, metrics, options)
        app.testing = False
        made = app.test_client()
        made.current = current
        return made

    return make


def send(client, *pictures, path="/api/predict", **kwargs):
    files = [(io.BytesIO(content), f"{place}.png") for place, content in enumerate(pictures)]
    return client.post(path, data={"image": files}, **kwargs)


def test_one_picture_as_the_body(client):
    answer = client().post("/api/predict", data=DARK, content_type="image/png")
    [result] = answer.json["results"]
    assert answer.status_code == 200 and answer.content_type == "application/json"
    assert result["predicted"] == "01-early" and result["sure"] and result["answer"] == "early"
    assert [item["period"] for item in result["top"]] == VOCAB  # the likeliest first
    assert result["probabilities"]["01-early"] == pytest.approx(1, abs=1e-3)
    assert result["far"] is False and result["distance"] is None and result["nearest"] == []


def test_many_pictures_in_their_order_and_one_that_is_none(client):
    answer = send(client(), BRIGHT, b"no picture", MIDDLE, BETWEEN)
    first, none, third, between = answer.json["results"]
    assert answer.status_code == 200
    assert [first["predicted"], third["predicted"]] == ["10-late", "02-high_noon"]
    assert none == {"name": "1.png", "error": "not an image: unknown bytes"}
    assert between["predicted"] is None and between["sure"] is False
    assert between["answer"] == "not sure, between high noon and early"


def test_the_query_says_how_much_is_told(client):
    asked = client()
    [result] = send(asked, DARK, query_string={"k": 1}).json["results"]
    assert len(result["top"]) == 1 and len(result["probabilities"]) == 3
    for query in ("k=0", "k=4", "k=x", "k=-1", "nearest=25", "k=1.5", "k=%C2%B2", "k=" + "9" * 99):
        assert send(asked, DARK, query_string=query).status_code == 400, query


def test_what_is_no_picture_is_refused_with_its_status(client):
    asked = client(Limits(rate=0, max_bytes=3000, pictures=2, max_pixels=10_000))
    large = encoded(noise(40, 40))
    assert len(large) > 3000
    post = asked.post
    refused = {
        400: [
            post("/api/predict", data={"note": "x"}, content_type="multipart/form-data"),
            post("/api/predict", data={"image": (io.BytesIO(b""), "")}),
        ],
        404: [asked.get("/api/nothing"), asked.get("/api/thumbnails/x/0"), asked.get("/../etc")],
        405: [asked.get("/api/predict"), asked.delete("/"), asked.put("/api/model")],
        413: [
            post("/api/predict", data=large, content_type="image/png"),
            send(asked, large),
            send(asked, DARK, DARK, DARK),
            post("/api/predict", data=bytes(7000), content_type="image/png"),
        ],
        415: [
            post("/api/predict", data=DARK, content_type="text/html"),
            post("/api/predict", data=DARK),
            post("/api/predict", data="a=b", content_type="application/x-www-form-urlencoded"),
        ],
        422: [
            post("/api/predict", data=b"GIF89a", content_type="image/gif"),
            post(
                "/api/predict",
                data=encoded(np.zeros((101, 100, 3), np.uint8)),
                content_type="image/png",
            ),
            send(asked, b"x", b"y"),
        ],
    }
    for status, answers in refused.items():
        for answer in answers:
            assert answer.status_code == status, (status, answer.status_code, answer.text)
            assert answer.json["error"] and "Traceback" not in answer.text
    assert "0.01 megapixels" in refused[422][1].json["error"]
    assert refused[405][0].headers["Allow"]


def test_a_request_without_a_length_is_411(client):
    environ = {"wsgi.input": io.BytesIO(DARK), "CONTENT_TYPE": "image/png"}
    answer = client().post("/api/predict", environ_overrides=environ)
    assert answer.status_code == 411 and "Content-Length" in answer.json["error"]


def test_a_client_that_sends_too_much_waits(client):
    asked = client(Limits(rate=0.5, burst=4, pictures=4))
    assert send(asked, DARK, DARK, DARK).status_code == 200
    answer = send(asked, DARK, DARK)
    assert answer.status_code == 429 and 1 <= int(answer.headers["Retry-After"]) <= 4
    assert asked.get("/api/model").status_code == 200  # what costs nothing is not counted
    other = asked.post(
        "/api/predict",
        data=DARK,
        content_type="image/png",
        environ_base={"REMOTE_ADDR": "10.1.1.1"},
    )
    assert other.status_code == 200


class Waiting(Brightness):
    """Answers when it is told to."""

    def __init__(self):
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_asked = threading.Event()

    def answer(self, pixels):
        self.is_asked.set()
        assert self.may_go.wait(20)
        return super().answer(pixels)


def test_a_full_queue_is_503_and_the_others_are_answered(client):
    classifier = Waiting()
    asked = client(Limits(rate=0, queue=2), classifier=classifier)
    classifier.may_go.clear()
    classifier.is_asked.clear()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(send(asked.application.test_client(), DARK)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert classifier.is_asked.wait(10)
    for _ in range(100):
        if "artclf_queue_pictures 2.0" in asked.get("/metrics").text:
            break
    refused = send(asked, DARK)
    assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
    assert asked.get("/healthz").status_code == 200
    classifier.may_go.set()
    for thread in threads:
        thread.join(10)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert send(asked, DARK).status_code == 200


def test_an_answer_that_takes_too_long_is_503(client):
    classifier = Waiting()
    asked = client(classifier=classifier, seconds=0.05)
    classifier.may_go.clear()
    answer = send(asked, DARK)
    classifier.may_go.set()
    assert answer.status_code == 503 and "Retry-After" in answer.headers


class Broken(Brightness):
    is_broken = False

    def answer(self, pixels):
        if self.is_broken:
            raise RuntimeError("secret of the inside")
        return super().answer(pixels)


def test_a_bug_is_500_without_its_text_and_the_next_request_is_answered(client, caplog):
    classifier = Broken()
    asked = client(classifier=classifier)
    classifier.is_broken = True
    answer = send(asked, DARK)
    assert answer.status_code == 500 and "secret" not in answer.text and answer.json["error"]
    assert "secret of the inside" in caplog.text
    classifier.is_broken = False
    assert send(asked, DARK).status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:8000", "[::1]:80", "LOCALHOST:1", "art.org"]
)
def test_hosts_that_are_this_server(client, host):
    asked = client(security=Security(hosts=["art.org"]))
    assert asked.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil", "::1", "a, localhost"]
)
def test_a_page_of_another_name_gets_no_answer(client, host):
    for path in ("/", "/api/model", "/healthz", "/static/app.js"):
        assert client().get(path, headers={"Host": host}).status_code == 400


def test_a_page_of_another_origin_may_not_ask(client):
    asked = client()
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        answer = send(asked, DARK, headers={"Origin": origin})
        assert answer.status_code == 403 and "Access-Control-Allow-Origin" not in answer.headers
    assert send(asked, DARK, headers={"Origin": "http://localhost"}).status_code == 200


def test_pages_of_an_origin_that_was_named_may_ask(client):
    asked = client(security=Security(cors=["https://friend.example"]))
    friend = {"Origin": "https://friend.example"}
    preflight = asked.options("/api/predict", headers=friend)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://friend.example"
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    answer = send(asked, DARK, headers=friend)
    assert answer.status_code == 200 and answer.headers["Vary"] == "Origin"
    stranger = asked.options("/api/predict", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in stranger.headers


def test_the_token_opens_the_api_and_nothing_else_does(client):
    asked = client(security=Security(token=TOKEN, bind="0.0.0.0"))
    closed = ("/api/model", "/api/openapi.json", "/metrics", "/api/thumbnails/x/0", "/api/none")
    for path in closed:
        for header in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"):
            answer = asked.get(path, headers={"Authorization": header})
            assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
    assert send(asked, DARK).status_code == 401
    assert asked.post("/api/reload").status_code == 401
    assert asked.get("/api/model", headers=BEARER).status_code == 200
    assert send(asked, DARK, headers=BEARER).status_code == 200
    for path in ("/", "/healthz", "/readyz", "/static/app.js"):
        assert asked.get(path).status_code == 200, path


def test_a_public_server_keeps_the_token_for_its_operator(client):
    asked = client(security=Security(token=TOKEN, bind="0.0.0.0", is_public=True))
    assert send(asked, DARK).status_code == 200 and asked.get("/api/model").status_code == 200
    assert asked.post("/api/reload").status_code == asked.get("/metrics").status_code == 401
    assert asked.post("/api/reload", headers=BEARER).status_code == 200
    without = client(security=Security(bind="0.0.0.0", is_public=True))
    assert without.post("/api/reload").status_code == 403


def test_guesses_of_the_token_are_few(client):
    asked = client(Limits(rate=0.01, burst=16), Security(token=TOKEN))
    statuses = [asked.post("/api/reload").status_code for _ in range(20)]
    assert statuses == [401] * 16 + [429] * 4


def test_security_that_is_none_is_refused():
    for settings in (
        {"bind": "0.0.0.0"},
        {"bind": "192.168.1.2"},
        {"bind": "::"},
        {"token": "short"},
        {"cors": ["*"]},
        {"cors": ["https://a.org/path"]},
        {"frames": ["a.org"]},
        {"frames": ["https://a.org; script-src *"]},
    ):
        with pytest.raises(SettingError):
            Security(**settings)


def test_every_answer_has_the_headers(client):
    asked = client()
    for answer in (
        asked.get("/"),
        asked.get("/no"),
        send(asked, DARK),
        asked.get("/static/app.js"),
    ):
        headers = answer.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY" and headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers and "Set-Cookie" not in headers
    framed = client(security=Security(frames=["https://hub.example"])).get("/")
    assert "frame-ancestors https://hub.example" in framed.headers["Content-Security-Policy"]
    assert "X-Frame-Options" not in framed.headers


def test_the_page_has_no_script_or_style_of_its_own(client):
    text = client().get("/").text
    assert "<script>" not in text and "<style" not in text and "style=" not in text
    loaded = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert loaded and all(re.match(r"/[a-z]|#", address) for address in loaded)  # all its own


def test_uploads_are_not_written_to_the_disk(client, monkeypatch):
    import tempfile

    def fail(*args, **kwargs):
        raise AssertionError("a temporary file")

    for name in ("TemporaryFile", "SpooledTemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, fail)
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", fail, raising=False)
    monkeypatch.setattr("werkzeug.formparser.TemporaryFile", fail, raising=False)
    large = encoded(noise(900, 900))
    assert len(large) > 2**20
    assert send(client(), large, large).status_code == 200


def test_a_new_export_is_taken_in_and_a_broken_one_is_not(client, tmp_path):
    asked = client(security=Security(token=TOKEN))
    before = asked.get("/api/model", headers=BEARER).json
    made = asked.current._load

    def newer():
        served = made()
        served.facts = {**served.facts, "version": "newer"}
        return served

    asked.current._load = newer
    answer = asked.post("/api/reload", headers=BEARER).json
    assert answer["version"] == "newer" and answer["limits"] == before["limits"]
    assert send(asked, DARK, headers=BEARER).json["model"] == "newer" != before["version"]

    def broken():
        raise ValueError("a damaged file")

    asked.current._load = broken
    refused = asked.post("/api/reload", headers=BEARER)
    assert refused.status_code == 409 and "a damaged file" in refused.json["error"]
    assert send(asked, DARK, headers=BEARER).json["model"] == "newer"
    text = asked.get("/metrics", headers=BEARER).text
    assert 'artclf_reloads_total{outcome="taken"} 1.0' in text
    assert 'artclf_reloads_total{outcome="refused"} 1.0' in text


def test_without_a_token_nobody_reloads(client):
    assert client().post("/api/reload").status_code == 403


def test_a_network_that_answers_nonsense_is_not_taken(client):
    class Nonsense(Brightness):
        def answer(self, pixels):
            probabilities, features = super().answer(pixels)
            return probabilities * np.nan, features

    with pytest.raises(ValueError, match="no probabilities"):
        client(classifier=Nonsense())


def test_maps_are_refused_where_none_can_be_drawn(client):
    asked = client(backend="onnx")
    answer = asked.post("/api/saliency", data=DARK, content_type="image/png")
    assert answer.status_code == 501 and "torch" in answer.json["error"]
    answer = send(asked, DARK, DARK, path="/api/saliency")
    assert answer.status_code == 400
    assert asked.get("/api/model").json["saliency"] is False
    unknown = client().post("/api/saliency?period=x", data=DARK, content_type="image/png")
    assert unknown.status_code == 422


def test_metrics_count_what_was_answered(client):
    asked = client()
    send(asked, DARK, BETWEEN, b"no picture")
    asked.get("/any/secret/path")
    text = asked.get("/metrics").text
    for line in (
        'artclf_pictures_total{outcome="sure"} 1.0',
        'artclf_pictures_total{outcome="unsure"} 1.0',
        'artclf_pictures_total{outcome="rejected"} 1.0',
        'artclf_requests_total{method="POST",path="/api/predict",status="200"} 1.0',
        'artclf_requests_total{method="GET",path="other",status="404"} 1.0',
        "artclf_queue_pictures 0.0",
        'artclf_predicted_total{period="01-early"}',
    ):
        assert line in text, line
    assert "secret" not in text and "0.png" not in text


class Pages:
    """Pictures by their URL, without a network."""

    def read(self, url):
        from artclf.data.pictures import Rejected

        if url == "http://a.example/dark.png":
            return DARK
        raise Rejected("blocked address")


def test_urls_are_taken_only_where_they_are_turned_on(client):
    urls = {"urls": ["http://a.example/dark.png", "http://10.0.0.1/"]}
    refused = client().post("/api/predict", json=urls)
    assert refused.status_code == 403 and "--urls" in refused.json["error"]
    asked = client(web=Pages())
    first, second = asked.post("/api/predict", json=urls).json["results"]
    assert first["predicted"] == "01-early" and first["name"] == "http://a.example/dark.png"
    assert second == {"name": "http://10.0.0.1/", "error": "blocked address"}
    for body in (
        [],
        {},
        {"urls": "x"},
        {"urls": [1]},
        {"urls": ["file:///etc/passwd"]},
        {"urls": []},
    ):
        assert asked.post("/api/predict", json=body).status_code == 400, body
    broken = asked.post("/api/predict", data="{", content_type="application/json")
    assert broken.status_code == 400


@pytest.fixture
def collection(tmp_path):
    """A data set with the classes of the network, and the place for three suggestions to it."""
    for seed, period in enumerate(VOCAB):
        folder = tmp_path / "gallery" / period
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(encoded(noise(seed=seed)))
    download.import_folder(tmp_path / "gallery", tmp_path / "data")
    return Suggestions(tmp_path / "data", most=3, most_bytes=10**6)


def collected(collection) -> list[tuple]:
    rows = read_catalogue(collection.data).query("status == 'suggested'")
    return list(zip(rows.period, rows.reason, rows.likelier, strict=True))


def give(client, query, content=DARK, content_type="image/png", **kwargs):
    return client.post(
        "/api/suggest", query_string=query, data=content, content_type=content_type, **kwargs
    )


def test_pictures_are_kept_only_with_agreement_and_where_that_is_turned_on(client, collection):
    off = give(client(), "agree=yes")
    assert off.status_code == 403 and "--collect" in off.json["error"]
    assert client().get("/api/model").json["collects"] is False

    asked = client(suggestions=collection)
    before = sorted(collection.data.rglob("*"))
    assert asked.get("/api/model").json["collects"] is True
    send(asked, DARK, BRIGHT)
    for query in ("", "agree=no", "agree=", "period=01-early", "agree=YES"):
        assert give(asked, query).status_code == 400, query
    assert sorted(collection.data.rglob("*")) == before and not collected(collection)

    kept = give(asked, "agree=yes&period=10-late")
    assert kept.status_code == 201 and kept.json["is_new"] and kept.json["period"] == "10-late"
    assert collected(collection) == [("10-late", "suggested by a visitor", "01-early")]
    again = give(asked, "agree=yes")
    assert again.status_code == 200 and again.json == {**kept.json, "is_new": False}
    unknown = send(asked, BRIGHT, path="/api/suggest?agree=yes&period=")
    assert unknown.status_code == 201 and unknown.json["period"] == "10-late"
    assert collected(collection)[1][1].endswith("doesn't know the period")
    text = asked.get("/metrics").text
    assert 'artclf_suggestions_total{outcome="kept"} 2.0' in text
    assert 'artclf_suggestions_total{outcome="known"} 1.0' in text
    assert 'artclf_pictures_total{outcome="sure"} 2.0' in text  # questions alone


def test_what_cannot_be_kept_is_refused_with_its_status(client, collection):
    asked = client(suggestions=collection)
    yes = "agree=yes"
    assert give(asked, yes, b"no picture").status_code == 422
    assert give(asked, f"{yes}&period=none").status_code == 422
    assert give(asked, yes, "{}", "application/json").status_code == 415
    assert send(asked, DARK, BRIGHT, path="/api/suggest?agree=yes").status_code == 400
    cross = give(asked, yes, headers={"Origin": "https://evil.example"})
    assert cross.status_code == 403
    guarded = client(security=Security(token=TOKEN), suggestions=collection)
    assert give(guarded, yes).status_code == 401 and not collected(collection)
    assert give(guarded, yes, headers=BEARER).status_code == 201

    with Catalogue(collection.data) as catalogue:
        catalogue.db.execute("DELETE FROM images WHERE period = '02-high_noon'")
    lost = give(asked, yes, MIDDLE)
    assert (
        lost.status_code == 422 and lost.json["error"] == "the data set has no class 02-high_noon"
    )
    with FileLock(collection.data.resolve() / ".lock", is_singleton=False):
        busy = give(asked, yes, BRIGHT)
    assert busy.status_code == 503 and int(busy.headers["Retry-After"]) > 0
    assert give(asked, yes, BRIGHT).status_code == 201
    assert give(asked, f"{yes}&period=01-early", MIDDLE).status_code == 201
    full = give(asked, f"{yes}&period=01-early", BETWEEN)
    assert full.status_code == 409 and "3 pictures wait" in full.json["error"]
    assert 'suggestions_total{outcome="full"} 1.0' in asked.get("/metrics").text


def test_the_description_names_every_path_and_status(client):
    asked = client(security=Security(token=TOKEN))
    document = asked.get("/api/openapi.json", headers=BEARER).json
    rules = {
        rule.rule.replace("<version>", "{version}").replace("<int:place>", "{id}")
        for rule in asked.application.url_map.iter_rules()
    }
    assert rules - set(document["paths"]) == {"/", "/static/<path:filename>"}
    assert set(document["paths"]) < rules
    responses = document["paths"]["/api/predict"]["post"]["responses"]
    statuses = {"200", "400", "401", "403", "408", "411", "413", "415", "422", "429", "503"}
    assert set(responses) == statuses
    assert document["security"] == [{"token": []}]
    references = set(json.dumps(document).split('"#/components/schemas/')[1:])
    assert {text.partition('"')[0] for text in references} <= set(document["components"]["schemas"])


def test_the_server_needs_no_torch():
    import subprocess

    code = (
        "import sys, artclf.serve;"
        "print([name for name in ('torch', 'fastai', 'sklearn', 'scipy', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_pixels_are_those_of_the_classifier(client):
    """A file name or a field of another name makes no difference; transparent parts are white."""
    clear = encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 0)))
    answer = client().post("/api/predict", data={"anything": (io.BytesIO(clear), "../../x")})
    [result] = answer.json["results"]
    assert result["predicted"] == "10-late" and result["name"] == "../../x"
