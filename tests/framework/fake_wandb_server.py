"""A server on the loopback that answers a W&B client well enough to take a run, and keeps all that was sent."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeServer(ThreadingHTTPServer):
    """`received` holds (path, body) of every request that carried one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    """A running server."""
    server = FakeServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self._body()
        self._answer({})

    def do_POST(self) -> None:
        text = self._body()
        if self.path.startswith("/graphql"):
            asked = json.loads(text)
            self._answer({"data": _answer(asked["query"], asked.get("variables") or {}, self.server.url)})
        else:
            self._answer({"limits": {}})

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _body(self) -> str:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        text = body.decode(errors="replace")
        self.server.received.append((self.path, text))
        return text

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _answer(query: str, variables: dict[str, Any], url: str) -> dict[str, Any]:
    if "upsertBucket" in query:
        name = variables.get("name") or "run"
        project = {"id": "project", "name": variables.get("project"), "entity": {"id": "entity", "name": "someone"}}
        bucket = {"id": name, "name": name, "displayName": name, "description": "", "config": "{}", "sweepName": None}
        return {"upsertBucket": {"bucket": bucket | {"historyLineCount": 0, "project": project}, "inserted": True}}
    if "createRunFiles" in query:
        files = [{"name": name, "uploadUrl": f"{url}/upload/{name}"} for name in variables.get("files") or []]
        return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
    if "viewer" in query or "serverInfo" in query:
        viewer = {"id": "user", "entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer, "serverInfo": {"cliVersionInfo": {}, "latestLocalVersionInfo": None, "features": []}}
    return {"model": {"bucket": None, "project": None}, "project": {"run": None}}
