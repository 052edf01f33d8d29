"""What `deploy/` holds, checked as far as it goes without an engine: files that exist, options that
the command has, users that aren't root; `nginx -t` and `systemd-analyze verify` where they are
installed.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import typer
import yaml

from artclf import cli

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.rglob("Dockerfile"))
OPTIONS = {
    option
    for parameter in typer.main.get_command(cli.app).commands["serve"].params
    for option in parameter.opts
}


def instructions(file: Path) -> list[tuple[str, str]]:
    """Pairs of an instruction and its arguments, with lines that go on put together."""
    text = re.sub(r"\\\n", " ", file.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_images_are_pinned_and_their_user_is_not_root(file):
    lines = instructions(file)
    names = [name for name, _ in lines]
    of = {name: [text for known, text in lines if known == name] for name in names}
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+", image) for image in of["FROM"])
    assert not of["FROM"][0].endswith(":latest") and "ADD" not in names
    assert of["USER"][-1].isdecimal() and int(of["USER"][-1]) > 0
    start = max(names.index(name) for name in ("ENTRYPOINT", "CMD") if name in names)
    assert names.index("USER") < start
    assert "HEALTHCHECK" in names and "/readyz" in of["HEALTHCHECK"][0]
    for name in ("ENTRYPOINT", "CMD"):
        for text in of.get(name, []):
            assert isinstance(json.loads(text), list)  # no shell, which would take SIGTERM
    assert all("--no-cache-dir" in text for text in of["RUN"] if "pip install" in text)


def test_what_the_image_copies_exists_and_its_extras_are_declared():
    lines = instructions(DEPLOY / "Dockerfile")
    for name, text in lines:
        if name == "COPY":
            *sources, _ = text.split()
            assert all((ROOT / source).exists() for source in sources), text
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [default] = [text for name, text in lines if name == "ARG" and text.startswith("EXTRAS=")]
    assert set(default.partition("=")[2].split(",")) <= set(extras["optional-dependencies"])


def test_compose_puts_nginx_in_front_and_nothing_else_is_reached():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
    artclf, nginx = services["artclf"], services["nginx"]
    assert "ports" not in artclf and artclf["read_only"] and artclf["cap_drop"] == ["ALL"]
    assert (DEPLOY / artclf["build"]["context"] / artclf["build"]["dockerfile"]).is_file()
    address = nginx["networks"]["inside"]["ipv4_address"]
    assert artclf["command"][artclf["command"].index("--proxy") + 1] == address
    assert "ARTCLF_TOKEN" in artclf["environment"] and "ARTCLF_TOKEN" in nginx["environment"]
    assert nginx["volumes"][0].startswith("./nginx.conf:")
    assert all(volume.endswith(":ro") for volume in artclf["volumes"] + nginx["volumes"])


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "artclf.service"])
def test_the_options_of_artclf_serve_exist(name):
    text = (DEPLOY / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "serve" in line or "command:" in line]
    options = [option for line in lines for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", line)]
    known = {option for option in options if option not in ("--build-arg",)}
    assert known and known <= OPTIONS


def test_nginx_takes_the_configuration(tmp_path):
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed")
    key, certificate = tmp_path / "privkey.pem", tmp_path / "fullchain.pem"
    subprocess.run(
        shlex.split("openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost")
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for name, value in {
        "${ARTCLF_HOST}": "localhost",
        "${ARTCLF_TOKEN}": "x" * 16,
        "/etc/nginx/certs": str(tmp_path),
        "server artclf:8000": "server 127.0.0.1:8000",
    }.items():
        assert name in text
        text = text.replace(name, value)
    whole = f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {text} }}"
    (tmp_path / "nginx.conf").write_text(whole)
    done = subprocess.run(
        [
            nginx,
            "-t",
            "-p",
            str(tmp_path),
            "-e",
            str(tmp_path / "log"),
            "-c",
            tmp_path / "nginx.conf",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_systemd_takes_the_unit(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DEPLOY / "artclf.service").read_text(encoding="utf-8")
    command = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)[1]
    unit = tmp_path / "artclf.service"
    unit.write_text(text.replace(command, sys.executable))
    done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "artclf.service" in line]
    assert done.returncode == 0 and said == [], done.stderr


@pytest.mark.slow
def test_the_space_answers_everybody(export, tmp_path, drawn):
    text = (DEPLOY / "space/README.md").read_text(encoding="utf-8")
    facts = yaml.safe_load(text.split("---")[1])
    assert facts["sdk"] == "docker" and len(facts["short_description"]) <= 60
    exposed = [text for name, text in instructions(DEPLOY / "space/Dockerfile") if name == "EXPOSE"]
    assert exposed == [str(facts["app_port"])]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "ARTCLF_EXPORT": str(export),
        "PORT": str(port),
        "SPACE_HOST": "space.example",
        "PYTHONPATH": str(ROOT),
    }
    server = subprocess.Popen([sys.executable, DEPLOY / "space/app.py"], env=environment)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
                break
            except urllib.error.URLError:
                time.sleep(0.5)
        file = next((drawn / "clean").rglob("*.jpg"))
        headers = {"Host": "space.example", "Content-Type": "image/jpeg"}
        address = f"http://127.0.0.1:{port}/api/predict"
        request = urllib.request.Request(address, file.read_bytes(), headers)
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["results"][0]["top"]
            assert "https://huggingface.co" in answer.headers["Content-Security-Policy"]
    finally:
        server.terminate()
        assert server.wait(60) == 0
