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

LARGE = (".safetensors", ".onnx")


@dataclass
class Repository:
    """One repository at one commit. Large files (`LARGE`) have a sha256, others are git blobs."""

    commit: str
    files: dict[str, bytes]
    gated: bool = False
    tokens: set[str] | None = None  # whose licence was accepted; None: everybody's who has a token
    spoiled: set[str] = field(default_factory=set)  # sent with one byte changed
    cut: dict[str, int] = field(default_factory=dict)  # the connection drops after so many bytes of the file, once
    short: set[str] = field(default_factory=set)  # announced and sent with its last byte missing
    hidden: set[str] = field(default_factory=set)  # listed, but not found
    stalled: dict[str, int] = field(default_factory=dict)  # nothing comes after so many bytes of the file, ever
    slow: float = 0.0  # seconds before each part of 64 KiB
    ranges: bool = True  # whether a download can be resumed
    plain: bool = False  # without the headers that only the Hub sends
    status: int | None = None  # answer everything with this

    def blob(self, path: str) -> str:
        content = self.files[path]
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def entry(self, path: str) -> dict[str, object]:
        size = len(self.files[path])
        entry: dict[str, object] = {"type": "file", "path": path, "size": size, "oid": self.blob(path)}
        if path.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(self.files[path]).hexdigest(), "size": size, "pointerSize": 134}
        return entry

    def etag(self, path: str) -> str:
        return hashlib.sha256(self.files[path]).hexdigest() if path.endswith(LARGE) else self.blob(path)


class Hub:
    """What the server holds, and the requests it saw as ``(method, path, range)``."""

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.requests: list[tuple[str, str, str]] = []
        self.endpoint = ""
        self.closing = threading.Event()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

        def refuse(self, code: int, name: str = "", message: str = "") -> None:
            self.send_response(code)
            if name:
                self.send_header("X-Error-Code", name)
            if name or message:
                self.send_header("X-Error-Message", message or name)
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
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if token == "hf_expired":
                return self.refuse(401, message="Invalid credentials in Authorization header")
            if repository.gated and not token:
                return self.refuse(401, "GatedRepo")
            if repository.gated and repository.tokens is not None and token not in repository.tokens:
                return self.refuse(403, "GatedRepo")
            if match[3] not in (repository.commit, "main"):
                return self.refuse(404, "RevisionNotFound")
            if match[2] != "resolve":
                entries = [repository.entry(file) for file in repository.files]
                sent = entries if match[2] == "tree" else {"id": match[1], "sha": repository.commit, "siblings": []}
                return self.answer(json.dumps(sent).encode(), {"Content-Type": "application/json"})
            if match[4] not in repository.files or match[4] in repository.hidden:
                return self.refuse(404, "EntryNotFound")
            return self.send_file(repository, match[4], wanted_range)

        def send_file(self, repository: Repository, file: str, wanted_range: str) -> None:
            content = repository.files[file]
            if file in repository.spoiled:
                content = bytes([content[0] ^ 1]) + content[1:]
            if file in repository.short:
                content = content[:-1]
            headers = {"ETag": f'"{repository.etag(file)}"', "X-Repo-Commit": repository.commit}
            if not repository.plain:
                headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{repository.etag(file)}"'}
            start = 0
            begins = re.fullmatch(r"bytes=(\d+)-", wanted_range)
            if repository.ranges:
                headers["Accept-Ranges"] = "bytes"
                if begins:
                    start = int(begins[1])
                    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            limit = repository.cut.pop(file, None) if self.command == "GET" else None
            self.answer(content[start:], headers, 206 if start else 200, limit, repository, file, start)

        def answer(
            self,
            body: bytes,
            headers: dict[str, str],
            code: int = 200,
            limit: int | None = None,
            repository: Repository | None = None,
            file: str = "",
            start: int = 0,
        ) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                with contextlib.suppress(ConnectionError):
                    self.send_parts(body[:limit], repository, file, start)
            if limit is not None:
                self.close_connection = True

        def send_parts(self, body: bytes, repository: Repository | None, file: str, start: int) -> None:
            stop = len(body)
            if repository is not None and file in repository.stalled:
                stop = max(0, repository.stalled[file] - start)
            step = 1 << 16
            for at in range(0, min(stop, len(body)), step):
                if repository is not None and repository.slow:
                    hub.closing.wait(repository.slow)
                self.wfile.write(body[at : min(at + step, stop)])
            if stop < len(body):
                self.wfile.flush()
                hub.closing.wait()

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
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
