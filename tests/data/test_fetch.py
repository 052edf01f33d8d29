"""One URL: what servers can do wrong, on loopback."""

import asyncio
import os
import socket
import struct
import time
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from loopback import Server, answer, picture, resolve_tests_to_loopback

from artclf import __version__
from artclf.data import client, fetch
from artclf.data.client import is_public
from artclf.data.fetch import Fetcher
from artclf.data.intake import Failure, probe

HTML = b"<!doctype html><title>Moved</title>"


@pytest.fixture
def server():
    with Server(picture=answer(picture(), Content_Type="image/jpeg")) as server:
        yield server


def get(*urls, **options):
    """What a fetcher gives for each URL, one after the other: `Fetched` or `Failure`."""

    async def main():
        async with Fetcher(**{"allow_private": True, "deadline": 5, **options}) as fetcher:
            return [await _caught(fetcher(url)) for url in urls]

    results = asyncio.run(main())
    return results[0] if len(urls) == 1 else results


async def _caught(fetching):
    try:
        return await fetching
    except Failure as failure:
        return failure


def png_header(width, height) -> bytes:
    """A PNG that says it has that size, and has no pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


def endless(piece: bytes, pause: float, head: bytes = b""):
    """A route that sends `head` and then `piece` for ever."""

    def route(connection):
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(pause)

    return route


# What comes


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_bytes_come_unchanged_and_the_format_is_that_of_the_bytes(server, name):
    body = picture(1, name)
    server.routes["/wrong.gif"] = answer(body, Content_Type="image/x-wrong")
    got = get(f"{server.url}/wrong.gif")
    assert (got.body, got.format, got.width, got.height, got.http_status) == (
        body,
        name,
        96,
        80,
        200,
    )


@pytest.mark.parametrize(
    "path",
    [
        "/a%2Fb/c%20d.jpg?size=%2F&y=a+b&z=%e9;x=1",
        "/iiif/2/id%3A1,0/full/!500,500/0/d.jpg",
        "/a//b/?url=http://x.test//y.jpg",
        "/%zz/100%?q=%",
        "/a/../b",
        "/~u/(1)'*$@:!,;=",
    ],
)
def test_paths_and_queries_are_sent_as_they_are(server, path):
    server.routes[path] = answer(picture())
    assert get(server.url + path).format == "JPEG"


@pytest.mark.parametrize(
    "path, sent",
    [
        ("/a b.jpg", "/a%20b.jpg"),
        ("/Grün.jpg?q=Öl", "/Gr%C3%BCn.jpg?q=%C3%96l"),
        ('/x|y"<>.jpg#part', "/x%7Cy%22%3C%3E.jpg"),
        ("/%20é", "/%20%C3%A9"),
    ],
)
def test_only_what_no_url_may_hold_is_encoded(server, path, sent):
    server.routes[sent] = answer(picture())
    assert get(server.url + path).format == "JPEG"


def test_host_names_may_have_any_letters(server, monkeypatch):
    resolve_tests_to_loopback(monkeypatch)
    assert get(f"http://münchen.test:{server.port}/picture?x=%2F").reason == "http 404"
    assert server.requests[-1] == ("xn--mnchen-3ya.test", "/picture?x=%2F")


def test_it_says_who_it_is(server):
    get(f"{server.url}/picture", contact="mailto:me@example.org")
    assert all(
        f"User-Agent: artclf/{__version__} (+mailto:me@example.org)\r\n" in head
        for head in server.heads
    )
    with pytest.raises(ValueError, match="contact"):
        Fetcher(contact="me\r\nCookie: x")


def test_cookies_are_not_kept(server, monkeypatch):
    resolve_tests_to_loopback(monkeypatch)
    server.routes["/picture"] = answer(picture(), Set_Cookie="id=1")
    get(*[f"http://museum.test:{server.port}/picture"] * 2)
    assert not any("Cookie" in head for head in server.heads)


# Redirects


def test_redirects_are_followed_across_hosts(server, monkeypatch):
    resolve_tests_to_loopback(monkeypatch)
    server.routes |= {
        "/1": answer(status="302 Found", Location=f"http://cdn.test:{server.port}/a/2?x=%2F+y"),
        "/a/2?x=%2F+y": answer(status="308 Permanent Redirect", Location="../3 4?q=%C3%BC"),
        "/3%204?q=%C3%BC": answer(
            status="301 Moved", Location=f"//127.0.0.1:{server.port}/picture"
        ),
    }
    assert get(f"{server.url}/1", robots=False).body == picture()
    assert [host for host, _ in server.requests] == [
        "127.0.0.1",
        "cdn.test",
        "cdn.test",
        "127.0.0.1",
    ]


@pytest.mark.parametrize(
    "location, reason",
    [
        ("/loop", "too many redirects"),
        ("ftp://127.0.0.1/x", "unsupported scheme: ftp"),
        ("http://[", "invalid URL"),
        ("file:///etc/passwd", "unsupported scheme: file"),
        ("http://:1/", "invalid URL"),
        ("/none", "http 404"),
    ],
)
def test_redirects_that_lead_nowhere(server, location, reason):
    server.routes["/loop"] = answer(status="302 Found", Location=location)
    failure = get(f"{server.url}/loop")
    assert (failure.reason, failure.retry) == (reason, False)
    assert len(server.requests) <= 12


# What goes wrong


@pytest.mark.parametrize(
    "url, reason",
    [
        ("ftp://127.0.0.1/x.jpg", "unsupported scheme: ftp"),
        ("file:///etc/passwd", "unsupported scheme: file"),
        ("data:image/png;base64,AAAA", "unsupported scheme: data"),
        ("picture.jpg", "invalid URL"),
        ("", "invalid URL"),
        ("http:///x", "invalid URL"),
        ("http://h:99999/", "invalid URL"),
        ("http://[::1/x", "invalid URL"),
        ("http://a..b/x", "invalid URL"),
        ("//127.0.0.1/x", "invalid URL"),
    ],
)
def test_urls_that_are_not_fetched(url, reason):
    failure = get(url)
    assert (failure.reason, failure.retry, failure.http_status) == (reason, False, None)


@pytest.mark.parametrize(
    "status, retry",
    [
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (410, False),
        (418, False),
        (204, False),
        (304, False),
        (429, True),
        (500, True),
        (503, True),
        (599, True),
    ],
)
def test_statuses(server, status, retry):
    server.routes["/x"] = answer(status=f"{status} Status")
    failure = get(f"{server.url}/x")
    assert (failure.reason, failure.http_status, failure.retry) == (f"http {status}", status, retry)


@pytest.mark.parametrize(
    "value, seconds",
    [
        ("7", 7),
        ("0", 0),
        ("nonsense", None),
        ("-3", None),
        ("1e9", None),
        ("Wed, 01 Jan 2020 00:00:00 GMT", 0),
        ("in an hour", 3600),
        ("Wed, 99 Foo 2020", None),
    ],
)
def test_retry_after(server, value, seconds):
    if value == "in an hour":
        value = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    server.routes["/x"] = answer(status="429 Too Many Requests", Retry_After=value)
    assert get(f"{server.url}/x").retry_after == (
        seconds if seconds is None else pytest.approx(seconds, abs=900)
    )


@pytest.mark.parametrize(
    "body, kind, reason",
    [
        (HTML, "text/html", "text/html"),
        (HTML, "image/jpeg", "text/html"),
        (b"no", "text/plain", "text/plain"),
        (b"", "image/png", "empty"),
        (b"\xff\xd8\xff\xe0 broken", "image/jpeg", "unreadable image/jpeg"),
        (b"<svg/>", "image/svg+xml", "unreadable image/svg+xml"),
        (b"%PDF-1.4", "x/" + "y" * 90, "x/" + "y" * 38),
    ],
)
def test_what_is_not_an_image(server, body, kind, reason):
    server.routes["/x.jpg"] = answer(body, Content_Type=kind)
    failure = get(f"{server.url}/x.jpg")
    assert (failure.reason, failure.http_status, failure.retry) == (
        f"not an image: {reason}",
        200,
        False,
    )


def test_every_beginning_of_a_picture_is_a_picture_or_a_failure():
    for name in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        body, reasons = picture(1, name), []
        for end in range(0, len(body), 7):
            try:
                assert probe(body[:end])[0] == name
            except Failure as failure:
                reasons.append(failure.reason)
        assert reasons and all(reason.startswith("not an image: ") for reason in reasons)


@pytest.mark.parametrize("size", [(10_001, 10_000), (60_000, 60_000)])
def test_too_many_pixels(server, size, recwarn):
    server.routes["/x"] = answer(png_header(*size))
    assert get(f"{server.url}/x").reason == "too many pixels"
    assert probe(png_header(10_000, 10_000)) == ("PNG", 10_000, 10_000)
    assert not recwarn.list


def test_too_large_by_its_own_account_or_by_the_bytes(server):
    server.routes |= {
        "/says": answer(b"", length=5000),
        "/is": answer(b"x" * 5000),
        "/endless": endless(b"x" * 1000, 0, b"HTTP/1.1 200 OK\r\n\r\n"),
    }
    for path in server.routes.keys() - {"/picture"}:
        failure = get(server.url + path, max_bytes=4999)
        assert (failure.reason, failure.http_status, failure.retry) == ("too large", 200, False)
    assert get(f"{server.url}/picture", max_bytes=len(picture())).body == picture()


def test_a_compressed_body_is_capped_too(server):
    bomb = zlib.compress(b"\0" * 10_000_000)
    server.routes["/x"] = answer(bomb, Content_Encoding="deflate")
    assert get(f"{server.url}/x", max_bytes=len(bomb) * 2).reason == "too large"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def reset(connection):
    connection.sendall(answer(b"x" * 1000, length=99_999))
    connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
    )
    connection.close()


@pytest.mark.parametrize(
    "route", [answer(picture(), length=99_999), CHUNKED + b"5\r\nabcde\r\n", reset]
)
def test_truncated(server, route):
    server.routes["/x"] = route
    failure = get(f"{server.url}/x")
    assert (failure.reason, failure.retry) == ("truncated", True)


@pytest.mark.parametrize(
    "route",
    [
        endless(b"x", 0.05, answer(b"", length=100_000)),
        endless(b"X-Slow: 1\r\n", 0.05, b"HTTP/1.1 200 OK\r\n"),
        endless(b"y", 0.05, b"HTTP/1.1 200 OK\r\nX: "),
        lambda connection: time.sleep(3),
    ],
    ids=["body drips", "headers drip", "one line", "silence"],
)
def test_slow_servers_cost_no_more_than_the_deadline(server, route):
    server.routes["/x"] = route
    start = time.monotonic()
    failure = get(f"{server.url}/x", deadline=0.3)
    assert (failure.reason, failure.retry) == ("timed out", True)
    assert time.monotonic() - start < 2.5


def test_the_deadline_holds_over_all_redirects(server):
    def slow(connection):
        time.sleep(0.2)
        connection.sendall(answer(status="302 Found", Location="/x"))

    server.routes["/x"] = slow
    assert get(f"{server.url}/x", deadline=0.5, robots=False).reason == "timed out"
    assert len(server.requests) <= 3


@pytest.mark.parametrize(
    "route, reason, retry",
    [
        (b"", "connection lost", True),
        (b"HTTP/1.1 200 OK\r\nContent-", "connection lost", True),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "invalid answer: ClientResponseError", False),
        (answer(b"", X="y" * 70_000), "invalid answer: ClientResponseError", False),
    ],
)
def test_answers_that_are_none(server, route, reason, retry):
    server.routes["/x"] = route
    failure = get(f"{server.url}/x")
    assert (failure.reason, failure.retry) == (reason, retry)


def test_hosts_that_are_not_there(server, monkeypatch):
    resolve_tests_to_loopback(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    results = get(
        "http://gone.example/x",
        "http://xn--99999999/",
        f"http://127.0.0.1:{port}/x",
        f"https://127.0.0.1:{server.port}/x",
    )
    assert [(failure.reason, failure.retry) for failure in results] == [
        ("cannot resolve host", True),
        ("cannot resolve host", True),
        ("cannot connect", True),
        ("no secure connection", False),
    ]


# Addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "10.1.2.3",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00::1]",
    ],
)
def test_private_addresses_are_refused_before_connecting(server, host):
    failure = get(f"http://{host}:{server.port}/picture", allow_private=False)
    assert (failure.reason, failure.retry) == ("blocked address", False)
    assert not server.requests


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"])
def test_other_ways_to_write_an_address_help_nobody(server, host):
    assert get(f"http://{host}:{server.port}/picture", allow_private=False).reason in (
        "blocked address",
        "invalid URL",
        "cannot resolve host",
    )
    assert not server.requests


def test_the_address_counts_and_not_the_name(server, monkeypatch):
    resolve_tests_to_loopback(monkeypatch)
    assert (
        get(f"http://museum.test:{server.port}/picture", allow_private=False).reason
        == "blocked address"
    )
    assert not server.requests


def test_the_address_is_checked_again_after_a_redirect(server, monkeypatch):
    monkeypatch.setattr(client, "is_public", lambda address: address == "127.0.0.1")
    server.routes["/x"] = answer(
        status="302 Found", Location="http://169.254.169.254/latest/meta-data"
    )
    failures = get(f"{server.url}/x", f"{server.url}/picture", allow_private=False)
    assert failures[0].reason == "blocked address"
    assert failures[1].body == picture()


def test_which_addresses_are_public():
    """The special blocks of the IANA registries, and neighbours that are ordinary."""
    special = """0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.1.1 172.16.0.1 172.31.255.255
        192.0.2.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
        :: ::1 ::127.0.0.1 ::ffff:10.0.0.1 ::ffff:127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 100::1 2001::1 2001:db8::1
        2002:7f00:1:: 2002:a00:1:: fc00::1 fd00::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1"""
    ordinary = """1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 172.15.0.1
        172.32.0.0 192.167.1.1 192.169.0.0 223.255.255.255 2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::808:808
        2002:808:808::"""
    assert [address for address in special.split() if is_public(address)] == []
    assert [address for address in ordinary.split() if not is_public(address)] == []


# Robots

ROBOTS = b"User-agent: *\nDisallow: /private\n\nUser-agent: artclf\nDisallow: /no\nAllow: /no/but\n"


def test_robots_txt_is_read_once_a_host_and_kept_to(server):
    server.routes |= {
        "/robots.txt": answer(ROBOTS),
        "/private": answer(picture()),
        "/no/but": answer(picture()),
    }
    results = get(*(server.url + path for path in ("/no/x.jpg", "/picture", "/private", "/no/but")))
    assert results[0].reason == "disallowed by robots.txt"
    assert [result.body for result in results[1:]] == [picture()] * 3
    assert server.asked("/robots.txt") == 1
    assert server.asked("/no/x.jpg") == 0


def test_robots_txt_counts_after_a_redirect(server, monkeypatch):
    resolve_tests_to_loopback(monkeypatch)
    server.routes |= {
        "/robots.txt": [answer(status="404 None"), answer(b"User-agent: *\nDisallow: /")],
        "/x": answer(status="302 Found", Location=f"http://other.test:{server.port}/picture"),
    }
    assert get(f"{server.url}/x").reason == "disallowed by robots.txt"
    assert server.asked("/picture") == 0


@pytest.mark.parametrize(
    "robots",
    [
        answer(status="404 None"),
        answer(status="403 Forbidden"),
        answer(b"\xff<html>"),
        answer(status="302 Found", Location="/robots.txt"),
        answer(b"", length=9_999_999),
    ],
)
def test_where_there_are_no_rules_all_is_allowed(server, robots):
    server.routes["/robots.txt"] = robots
    assert get(f"{server.url}/picture").body == picture()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_fails_to_give_its_rules_is_asked_again_later(server, status):
    server.routes["/robots.txt"] = [answer(status=f"{status} Status"), answer(status="404 None")]
    failure, fetched = get(f"{server.url}/picture", f"{server.url}/picture")
    assert (failure.reason, failure.retry) == (f"robots.txt: http {status}", True)
    assert fetched.body == picture()


@pytest.mark.parametrize(
    "tag, forbidden",
    [
        ("noai", True),
        ("noindex, NoImageAI", True),
        ("max-image-preview:large, noai", True),
        ("noai, max-snippet: 2", True),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST, noai", True),
        ("artclf: noai", True),
        ("otherbot: noai", False),
        ("noindex", False),
        ("none", False),
    ],
)
def test_x_robots_tag(server, tag, forbidden):
    server.routes["/x"] = answer(picture(), X_Robots_Tag=tag)
    result = get(f"{server.url}/x")
    assert (
        (result.reason == "disallowed by X-Robots-Tag") if forbidden else (result.body == picture())
    )


def test_x_robots_tag_counts_on_a_redirect(server):
    for tag in ("noai", "noindex"):
        headers = {"X_Robots_Tag": tag, "Location": "/picture"}
        server.routes[f"/{tag}"] = answer(status="302 Found", **headers)
    refused, fetched = get(f"{server.url}/noai", f"{server.url}/noindex")
    assert (refused.reason, refused.http_status) == ("disallowed by X-Robots-Tag", 302)
    assert fetched.body == picture() and server.asked("/picture") == 1
    assert get(f"{server.url}/noai", robots=False).body == picture()


def test_one_switch_turns_both_off(server):
    server.routes |= {
        "/robots.txt": answer(b"User-agent: *\nDisallow: /"),
        "/x": answer(picture(), X_Robots_Tag="noai"),
    }
    assert get(f"{server.url}/x", robots=False).body == picture()
    assert server.asked("/robots.txt") == 0


def test_the_rules_of_so_many_hosts_are_remembered_and_no_more(server, monkeypatch):
    resolve_tests_to_loopback(monkeypatch)
    monkeypatch.setattr(fetch, "REMEMBERED_HOSTS", 3)
    get(*(f"http://h{i % 4}.test:{server.port}/picture" for i in range(8)))
    assert server.asked("/robots.txt") == 8


# Limits


def fetch_all(urls, **options):
    async def main():
        async with Fetcher(**{"allow_private": True, "deadline": 5, **options}) as fetcher:
            return await asyncio.gather(*map(fetcher, urls))

    return asyncio.run(main())


def test_requests_under_way_are_limited_per_host_and_over_all(server, monkeypatch):
    resolve_tests_to_loopback(monkeypatch)
    server.routes["/slow"] = lambda connection: (time.sleep(0.02), answer(picture()))[1]
    urls = [f"http://h{i % 8}.test:{server.port}/slow" for i in range(80)]
    assert len(fetch_all(urls, per_host=2, total=10)) == 80
    assert server.most.pop(None) == 10
    assert set(server.most.values()) == {2}


def test_hosts_that_all_redirect_to_one_do_not_flood_it(server, monkeypatch):
    resolve_tests_to_loopback(monkeypatch)
    server.default = answer(status="302 Found", Location=f"http://cdn.test:{server.port}/slow")
    server.routes["/slow"] = lambda connection: (time.sleep(0.1), answer(picture()))[1]
    urls = [f"http://h{i}.test:{server.port}/x" for i in range(20)]
    assert (
        len(fetch_all(urls, deadline=0.6, robots=False)) == 20
    )  # the wait for its turn is longer, and free
    assert server.most["cdn.test"] == 2
