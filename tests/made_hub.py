"""A Hugging Face hub on 127.0.0.1: repositories in memory, for the calls that huggingface_hub makes
to create one, to commit small files and large ones, and to read a snapshot.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_a_test"
LARGE = (".safetensors", ".onnx", ".pkl", ".npz")


class Hub(ThreadingHTTPServer):
    """`repositories` maps USER/NAME to `private` and `commits`, a list of pairs of a commit's hash
    and its files; `requests` lists method and path of what was asked. What is private, and every
    upload, takes `TOKEN`.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, dict] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.shutdown()
        self.server_close()

    def files(self, repository: str, revision: str = "main") -> tuple[str, dict[str, bytes]]:
        """The hash of a commit and its files; KeyError where there is no such revision."""
        commits = self.repositories[repository]["commits"]
        if revision == "main":
            return commits[-1]
        return next(pair for pair in commits if pair[0] == revision)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def _answer(self):
        hub, path = self.server, self.path.partition("?")[0]
        hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_user = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if match := re.fullmatch(r"/lfs/(\w+)", path):
            assert hashlib.sha256(body).hexdigest() == match[1]
            hub.large[match[1]] = body
            return self._send(200)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.command == "POST" and not is_user:
            return self._send(401, **{"X-Error-Message": "Invalid credentials"})
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
            is_there = name in hub.repositories
            private = wanted.get("private", wanted.get("visibility") == "private")
            hub.repositories.setdefault(name, {"private": private, "commits": [("0" * 40, {})]})
            return self._json({"url": f"{hub.url}/{name}"}, 409 if is_there else 200)
        match = re.match(r"(?:/api/models)?/([\w.-]+/[\w.-]+?)(?:\.git)?(?:/(.*))?$", path)
        repository, rest = match[1], match[2] or ""
        known = hub.repositories.get(repository)
        if known is None or (known["private"] and not is_user):
            return self._send(401, **{"X-Error-Code": "RepoNotFound"})
        return self._of_repository(repository, rest, body)

    def _of_repository(self, repository: str, rest: str, body: bytes):
        hub = self.server
        known = hub.repositories[repository]
        if rest.startswith("preupload/"):
            modes = []
            for file in json.loads(body)["files"]:
                mode = "lfs" if file["path"].endswith(LARGE) else "regular"
                modes.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
            return self._json({"files": modes})
        if rest == "info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"{hub.url}/lfs/{item['oid']}"}}
            return self._json({"transfer": "basic", "objects": objects})
        if rest.startswith("commit/"):
            files = dict(known["commits"][-1][1])
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
            commit = hashlib.sha1(body).hexdigest()
            known["commits"].append((commit, files))
            url = f"{hub.url}/{repository}/commit/{commit}"
            return self._json({"commitUrl": url, "commitOid": commit})
        kind, _, rest = rest.partition("/")
        revision, _, name = rest.partition("/")
        try:
            commit, files = hub.files(repository, revision or "main")
        except StopIteration:
            return self._send(404, **{"X-Error-Code": "RevisionNotFound"})
        if kind == "resolve":
            if name not in files:
                return self._send(404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            etag = hashlib.sha256(files[name]).hexdigest()
            return self._send(200, files[name], **{"ETag": f'"{etag}"', "X-Repo-Commit": commit})
        if kind == "tree":
            entries = []
            for path, content in files.items():
                oid = hashlib.sha1(content).hexdigest()
                entries.append({"type": "file", "path": path, "size": len(content), "oid": oid})
            return self._json(entries)
        siblings = [{"rfilename": path} for path in files]
        about = {"id": repository, "sha": commit, "private": known["private"]}
        return self._json({**about, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})

    def _json(self, content, status: int = 200):
        self._send(status, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes = b"", **headers: str):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
