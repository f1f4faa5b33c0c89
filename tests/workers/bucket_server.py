"""A store behind HTTP, as S3 is: a server that can be told to fail, and fsspec's way to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fsspec import AbstractFileSystem, register_implementation

PROTOCOL = "bucket"


class BucketServer(ThreadingHTTPServer):
    """Objects by path, in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.refusals = 0
        """So many of the next requests are answered with 503."""
        self.truncations = 0
        """Of so many of the next answers half gets lost."""

    @property
    def url(self) -> str:
        """For ``ArtifactStore``."""
        return f"{PROTOCOL}://127.0.0.1:{self.server_address[1]}/store"


class _Handler(BaseHTTPRequestHandler):
    server: BucketServer

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._refuses():
            self.server.objects[self.path] = data
            self._answer(HTTPStatus.OK, b"")

    def do_GET(self) -> None:
        if self._refuses():
            return
        data = self.server.objects.get(self.path)
        if data is None:
            self._answer(HTTPStatus.NOT_FOUND, b"")
        else:
            self._answer(HTTPStatus.OK, data)

    def _refuses(self) -> bool:
        if self.server.refusals <= 0:
            return False
        self.server.refusals -= 1
        self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"slow down")
        return True

    def _answer(self, status: HTTPStatus, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if data and self.server.truncations > 0:
            self.server.truncations -= 1
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class BucketFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """What ``ArtifactStore`` needs of it."""

    protocol = PROTOCOL

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
        """One atomic put."""
        assert mode == "overwrite"
        self._ask("PUT", path, value)

    def cat_file(self, path: str, *_: object, **__: object) -> bytes:
        """The whole object."""
        return self._ask("GET", path)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        host, _, key = self._strip_protocol(path).partition("/")
        connection = HTTPConnection(host, timeout=5)
        try:
            connection.request(method, f"/{key}", body)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status == HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(path)
        if answer.status != HTTPStatus.OK:
            raise OSError(f"{answer.status} {data.decode()}")
        return data


@contextmanager
def bucket_server() -> Iterator[BucketServer]:
    """A server for the length of the block."""
    register_implementation(PROTOCOL, BucketFileSystem, clobber=True)
    with BucketServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
