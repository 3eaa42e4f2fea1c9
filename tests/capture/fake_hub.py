"""A model hub on 127.0.0.1: the few addresses that huggingface_hub asks for, and a list of what was asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "c0ffee" + "0" * 34


class Hub:
    """Serves folders as repositories: `folders["owner/name"] = path`; `gated` names need a token."""

    def __init__(self, folders: dict[str, Path], gated: frozenset[str] = frozenset()) -> None:
        self.folders, self.gated = folders, gated
        self.asked: list[str] = []
        self.address = ""


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(path)
        is_api = path.startswith("/api/models/")
        name = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        folder = self.hub.folders.get(name)
        if folder is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        if name in self.hub.gated:
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        revision = path.split("/revision/")[1] if "/revision/" in path else path.partition("/resolve/")[2].split("/")[0]
        if revision not in ("", "main", "v1", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        if is_api:
            files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
            info = {"id": name, "sha": COMMIT, "siblings": files, "private": False, "tags": []}
            return self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body)
        file = folder / path.rpartition("/")[2]
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, body)
        content = file.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self._send(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
