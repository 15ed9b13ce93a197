"""A hub of models on this machine: what huggingface_hub asks of one to fetch and to push files."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """Repositories by name, each of them one commit; `asked` are the paths of all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Be quiet."""

    def _reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any) -> None:
        self._reply(200, json.dumps(value).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        name, _, rest = self.path.lstrip("/").partition("/resolve/")
        file = rest.partition("/")[2]
        held = self.server.repositories.get(name)
        if held is None:
            self._reply(404, X_Error_Code="RepoNotFound")
        elif file not in held:
            self._reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit_of(held))
        else:
            digest = hashlib.sha1(held[file]).hexdigest()
            self._reply(200, held[file], ETag=f'"{digest}"', X_Repo_Commit=commit_of(held))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            self._json({"url": f"{self.server.url}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            told = {"uploadMode": "regular", "shouldIgnore": False}
            self._json({"files": [{"path": file["path"], **told} for file in files]})
        else:
            name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[name][line["value"]["path"]] = content
            commit = commit_of(self.server.repositories[name])
            address = f"{self.server.url}/{name}/commit/{commit}"
            self._json({"commitUrl": address, "commitOid": commit})


def commit_of(held: dict[str, bytes]) -> str:
    """Return a commit for the files of a repository."""
    return hashlib.sha1(repr(sorted(held.items())).encode()).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """Run a hub for as long as the block."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
