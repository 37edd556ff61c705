"""A real HTTP server with one artifact, which cuts, tampers or lies on demand; shared by the tests of fetching."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class ArtifactServer:
    """Serves ``files`` the way prunus does. Every attribute may be changed while it runs."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.listed = {name: self.entry(data) for name, data in files.items()}
        self.cuts: list[int] = []
        """Bytes after which the next answers break off, in order."""
        self.requests: list[tuple[str, int]] = []
        """(path, offset) of every file that was asked for."""
        self.ignore_range = False

    @staticmethod
    def entry(data: bytes) -> dict[str, object]:
        return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}

    @property
    def manifest(self) -> bytes:
        document = {
            "job_id": "j1",
            "job_name": "prune",
            "attempt_id": "j1-a1",
            "files": self.listed,
            "parents": {"model": "org/base"},
        }
        return json.dumps(document).encode()

    def view(self) -> bytes:
        files = [{"path": name, **entry} for name, entry in self.listed.items()]
        digest = hashlib.sha256(self.manifest).hexdigest()
        view = {"source": "job:prune", "job_id": "j1", "job_name": "prune", "manifest_sha256": digest, "files": files}
        return json.dumps(view).encode()


@contextmanager
def serving(server: ArtifactServer) -> Iterator[str]:
    """Run the server on loopback; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            where = urlsplit(self.path)
            if where.path == "/v1/artifacts":
                self._answer(200, server.view())
                return
            path = parse_qs(where.query)["path"][0]
            if path == "manifest.json":
                self._answer(200, server.manifest)
                return
            begin = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            server.requests.append((path, begin))
            data = server.files[path][begin:]
            self._answer(206 if begin else 200, data, server.cuts.pop(0) if server.cuts else None)

        def _answer(self, status: int, data: bytes, cut: int | None = None) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(data if cut is None else data[:cut])

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
