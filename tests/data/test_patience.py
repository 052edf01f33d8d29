"""Hosts that ask for patience, and redirects to them: they get it whoever leads to them."""

import asyncio
import time
from collections import Counter

import pytest
from made_hosts import JPEG, NOT_FOUND, Hosts, Patient, refusal

from artclf.data import patience
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.intake import Failure
from artclf.download import fetch_lists


def run(tmp_path, hosts: Hosts, urls, **options):
    """What `fetch_lists` returns of a list of `urls`, as one dict."""
    lists = tmp_path / "lists"
    lists.mkdir(exist_ok=True)
    (lists / "urls_one.csv").write_text("\n".join(["url", *urls]) + "\n")
    options = {"backoff": 0.01, "robots": False, **options}
    [summary] = fetch_lists(lists, tmp_path / "data", engine=hosts.engine, **options).to_dict(
        "records"
    )
    return summary


def led_to(target: str, others):
    """How hosts reply that redirect to `target`, which replies as `others` does."""

    def reply(host, path):
        return others() if host == target else f"http://{target}/{host}{path}"

    return reply


@pytest.mark.parametrize("has_own_rows", [True, False])
def test_a_host_gets_patience_from_all_that_redirect_to_it(tmp_path, has_own_rows):
    target = Patient(every=10, seconds=0.4)
    hosts = Hosts(led_to("t.example", target))
    names = [f"o{k}.example" for k in range(12)] + ["t.example"] * has_own_rows
    urls = [f"http://{name}/{i}" for i in range(2) for name in names]
    assert run(tmp_path, hosts, urls)["ok"] == len(urls)
    assert len(hosts.refused("t.example")) >= 2 and not hosts.too_early("t.example")
    rows = read_catalogue(tmp_path / "data")
    assert rows.tries.sum() == len(urls) + len(hosts.refused("t.example"))


def test_rows_whose_target_is_closed_keep_no_other_waiting(tmp_path):
    asked = []

    def reply(host, path):
        if host == "t.example":
            asked.append(time.monotonic())
            left = asked[0] + 2 - asked[-1]
            return refusal(left) if left > 0 else JPEG
        return f"http://t.example{path}" if path.startswith("/away") else JPEG

    hosts = Hosts(reply)
    urls = [f"http://o.example/away{i}" for i in range(30)]
    urls += [f"http://o.example/{i}" for i in range(20)]
    assert run(tmp_path, hosts, urls)["ok"] == 50
    own = [request for request in hosts.of("o.example") if "away" not in request.path]
    assert max(request.ended for request in own) < asked[0] + 2
    assert hosts.refused("t.example") and not hosts.too_early("t.example")
    times = Counter(request.path for request in hosts.of("o.example"))
    assert max(times.values()) == 2  # once to learn where it leads, and once when that is open


def test_a_host_that_wanted_patience_is_asked_for_one_row_at_a_time(tmp_path):
    hosts = Hosts(led_to("t.example", Patient(every=10, seconds=0.02)))
    urls = [f"http://o{k}.example/{i}" for i in range(20) for k in range(4)]
    assert run(tmp_path, hosts, urls)["ok"] == 80
    first = hosts.refused("t.example")[0]
    requests = [request for request in hosts.of("t.example") if request.began > first.ended]
    pairs = list(zip(requests, requests[1:], strict=False))
    assert pairs and all(later.began >= earlier.ended for earlier, later in pairs)


def test_rows_that_moved_do_not_wait_for_the_end_of_the_host_they_come_from(tmp_path):
    def reply(host, path):
        if host == "t.example":
            return JPEG if len(hosts.of("t.example")) > 1 else refusal(0.02)
        return "http://t.example/" if path == "/0" else JPEG

    hosts = Hosts(reply)
    assert run(tmp_path, hosts, [f"http://o.example/{i}" for i in range(100)])["ok"] == 100
    assert hosts.of("t.example")[-1].ended < hosts.of("o.example", "/70")[0].began


def test_a_request_to_a_closed_host_does_not_wait_for_a_place_first(tmp_path):
    async def main(catalogue):
        patiences = patience.patience_of_hosts(catalogue, 0)
        with patiences.using("o.example") as home, patiences.using("t.example") as closed:
            closed.close(refusal(5), time.monotonic())
            attempt = patience.Attempt(patiences, home, may_pass=False)
            with pytest.raises(patience.Closed), attempt.turn("t.example"):
                pytest.fail("it waits for a place")

    with Catalogue(tmp_path) as catalogue:
        patience.drop_expired(catalogue)
        asyncio.run(main(catalogue))


def test_rows_that_moved_do_not_wait_for_a_host_that_is_given_up(tmp_path):
    """The first row waits at `t.example` when `o.example` says to another one that it is closed."""

    def reply(host, path):
        if host == "t.example":
            return refusal(0.1)
        return "http://t.example/" if path == "/0" else refusal(3600)

    summary = run(tmp_path, Hosts(reply), ["http://o.example/0", "http://o.example/1"])
    assert summary["reasons"] == {"http 429, try again in over 120 s": 2}


def test_rows_come_to_a_host_that_was_done_before(tmp_path):
    """`t.example` answers its only row and asks for patience when the others lead there."""
    target = Patient(every=2, seconds=0.1)

    def reply(host, path):
        if host == "t.example":
            return target()
        return f"http://t.example{path}" if path != "/first" else JPEG

    hosts = Hosts(reply)
    urls = ["http://t.example/0", "http://o.example/first"]
    urls += [f"http://o.example/{i}" for i in range(5)]
    assert run(tmp_path, hosts, urls)["ok"] == 7
    assert hosts.refused("t.example") and not hosts.too_early("t.example")


def test_a_robots_txt_that_redirects_waits_for_its_host(tmp_path):
    target = Patient(every=3, seconds=0.4)

    def reply(host, path):
        if path == "/robots.txt":
            return NOT_FOUND if host == "t.example" else f"http://t.example/{host}"
        return JPEG if host != "t.example" else target()

    hosts = Hosts(reply)
    urls = [f"http://o{k}.example/{i}" for k in range(8) for i in range(2)]
    assert run(tmp_path, hosts, urls, robots=True)["ok"] == 16
    assert len(hosts.refused("t.example")) >= 2 and not hosts.too_early("t.example")


def test_what_a_redirect_target_asked_an_earlier_run_for_holds(tmp_path):
    data = tmp_path / "data"
    hosts = Hosts(led_to("t.example", lambda: refusal(0.5)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience.Patience, "until_open", None)  # ends the run
        with pytest.raises(TypeError):
            run(tmp_path, hosts, ["http://o.example/1"])
    [closed] = hosts.of("t.example")
    with Catalogue(data) as catalogue:
        assert 0.1 < patience.seconds_left(catalogue, "t.example") <= 0.5
        assert not patience.seconds_left(catalogue, "o.example")
    hosts = Hosts(led_to("t.example", lambda: JPEG))
    assert run(tmp_path, hosts, ["http://o.example/1"])["ok"] == 1
    [request] = hosts.of("t.example")
    assert request.began >= closed.ended + 0.5 - 0.02


def test_a_target_that_never_answers_is_given_up_for_all(tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.2)
    hosts = Hosts(led_to("t.example", lambda: refusal(0)))
    urls = [f"http://o{k}.example/{i}" for k in range(5) for i in range(4)]
    summary = run(tmp_path, hosts, urls, backoff=0.03)
    assert summary["reasons"] == {"http 429 again and again, try later": 20}
    assert len(hosts.of("t.example")) <= 2 + 3  # two at first, after 0.03, 0.06 and 0.09 s
    assert (read_catalogue(tmp_path / "data").http_status == 429).all()


def test_who_asks_for_too_much_patience_gets_none_by_redirects_either(tmp_path):
    hosts = Hosts(led_to("t.example", lambda: refusal(3600)))
    urls = [f"http://o{k}.example/{i}" for k in range(5) for i in range(4)]
    summary = run(tmp_path, hosts, urls)
    assert summary["reasons"] == {"http 429, try again in over 120 s": 20}
    assert len(hosts.of("t.example")) <= 2


def test_a_single_target_that_always_refuses_takes_no_other_with_it(tmp_path):
    def reply(host, path):
        if host == "o.example":
            return f"http://t.example{path}"
        return refusal(0) if path == "/0" else JPEG

    summary = run(tmp_path, Hosts(reply), [f"http://o.example/{i}" for i in range(20)])
    assert (summary["ok"], summary["reasons"]) == (19, {"http 429": 1})


def test_hosts_that_lead_to_each_other_and_both_want_patience_get_it(tmp_path):
    both = {"a.example": Patient(4, 0.05), "b.example": Patient(5, 0.07)}

    def reply(host, path):
        answer = both[host]()
        if isinstance(answer, Failure) or path.startswith("/from"):
            return answer
        [other] = both.keys() - {host}
        return f"http://{other}/from{path}"

    hosts = Hosts(reply)
    urls = [f"http://{name}/{i}" for i in range(12) for name in both]
    assert run(tmp_path, hosts, urls)["ok"] == 24
    for host in both:
        assert hosts.refused(host) and not hosts.too_early(host)


def test_a_moved_row_that_a_host_on_its_way_always_refuses_fails_alone(tmp_path):
    """`o.example` redirects /0 once, and refuses it from then on."""
    asked = Counter()

    def reply(host, path):
        asked[host, path] += 1
        if host == "t.example":
            return refusal(0.05) if asked[host, path] == 1 and path == "/0" else JPEG
        if path == "/0" and asked[host, path] > 1:
            return refusal(0)
        return f"http://t.example{path}"

    summary = run(tmp_path, Hosts(reply), [f"http://o.example/{i}" for i in range(6)])
    assert (summary["ok"], summary["reasons"]) == (5, {"http 429": 1})


def test_a_redirect_before_a_refusal_of_the_same_host_is_no_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.3)
    hosts = Hosts(lambda host, path: refusal(0) if "to" in path else f"/to{path}")
    urls = [f"http://o.example/{i}" for i in range(20)]
    summary = run(tmp_path, hosts, urls, backoff=0.03)
    assert summary["reasons"] == {"http 429 again and again, try later": 20}
    assert len(hosts.asked) <= 2 * (2 + 5)


def test_what_failed_before_a_row_moved_counts(tmp_path):
    replies = [Failure("http 503", 503, True), refusal(0.05)]

    def reply(host, path):
        if host == "o.example":
            return "http://t.example/"
        return replies.pop(0) if replies else Failure("http 503", 503, True)

    hosts = Hosts(reply)
    assert run(tmp_path, hosts, ["http://o.example/"])["reasons"] == {"http 503": 1}
    assert len(hosts.of("t.example")) == 3 + 1  # three tries, and the refusal
    assert read_catalogue(tmp_path / "data").tries.tolist() == [4]
