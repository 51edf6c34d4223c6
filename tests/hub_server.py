"""A local stand-in for the Hub: enough of its protocol to list and download a repository, with faults on demand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """One repository at one commit. Files named ``*.safetensors`` are large files with a sha256, others git blobs."""

    commit: str
    files: dict[str, bytes]
    gated: bool = False
    spoiled: set[str] = field(default_factory=set)  # sent with one byte changed
    cut: dict[str, int] = field(default_factory=dict)  # the connection drops after so many bytes of the file, once
    status: int | None = None  # answer everything with this

    def blob(self, path: str) -> str:
        content = self.files[path]
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def entry(self, path: str) -> dict[str, object]:
        size = len(self.files[path])
        entry: dict[str, object] = {"type": "file", "path": path, "size": size, "oid": self.blob(path)}
        if path.endswith(".safetensors"):
            entry["lfs"] = {"oid": hashlib.sha256(self.files[path]).hexdigest(), "size": size, "pointerSize": 134}
        return entry

    def etag(self, path: str) -> str:
        return hashlib.sha256(self.files[path]).hexdigest() if path.endswith(".safetensors") else self.blob(path)


class Hub:
    """What the server holds, and the requests it saw as ``(method, path, range)``."""

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.requests: list[tuple[str, str, str]] = []
        self.endpoint = ""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

        def refuse(self, code: int, name: str = "") -> None:
            self.send_response(code)
            if name:
                self.send_header("X-Error-Code", name)
                self.send_header("X-Error-Message", name)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            wanted_range = self.headers.get("Range", "")
            hub.requests.append((self.command, path, wanted_range))
            match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(tree|revision)/([^/]+)/?", path) or re.fullmatch(
                r"/([^/]+/[^/]+)/(resolve)/([^/]+)/(.+)", path
            )
            repository = hub.repositories.get(match[1]) if match else None
            if match is None or repository is None:
                return self.refuse(404, "RepoNotFound")
            if repository.status is not None:
                return self.refuse(repository.status)
            if repository.gated and not self.headers.get("Authorization"):
                return self.refuse(401, "GatedRepo")
            if match[3] not in (repository.commit, "main"):
                return self.refuse(404, "RevisionNotFound")
            if match[2] != "resolve":
                entries = [repository.entry(file) for file in repository.files]
                sent = entries if match[2] == "tree" else {"id": match[1], "sha": repository.commit, "siblings": []}
                return self.answer(json.dumps(sent).encode(), {"Content-Type": "application/json"})
            if match[4] not in repository.files:
                return self.refuse(404, "EntryNotFound")
            return self.send_file(repository, match[4], wanted_range)

        def send_file(self, repository: Repository, file: str, wanted_range: str) -> None:
            content = repository.files[file]
            if file in repository.spoiled:
                content = bytes([content[0] ^ 1]) + content[1:]
            headers = {
                "ETag": f'"{repository.etag(file)}"',
                "X-Repo-Commit": repository.commit,
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{repository.etag(file)}"',
                "Accept-Ranges": "bytes",
            }
            start = 0
            if begins := re.fullmatch(r"bytes=(\d+)-", wanted_range):
                start = int(begins[1])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            limit = repository.cut.pop(file, None) if self.command == "GET" else None
            self.answer(content[start:], headers, 206 if start else 200, limit)

        def answer(self, body: bytes, headers: dict[str, str], code: int = 200, limit: int | None = None) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:limit])
            if limit is not None:
                self.close_connection = True

    return Handler


@contextlib.contextmanager
def serve(repositories: dict[str, Repository]) -> Iterator[Hub]:
    """Serve repositories at ``hub.endpoint`` while the context lasts."""
    hub = Hub(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
