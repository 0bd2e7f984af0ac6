"""A web server on this machine that misbehaves as it is told."""

import contextlib
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class WebServer(ThreadingHTTPServer):
    """Serves bytes by path.

    Attributes
    ----------
    files : dict
        Content by path, or a number to answer, or a text: where the file has moved.
    has_ranges, has_versions, has_lengths : bool
    cuts : list of int
        Each answer takes the first, and is cut after so many bytes.
    lie : int
        Added to the length that is told.
    extra : dict
        Headers that are sent as well.
    before : callable
        Called with the path before each answer.
    at_cut : callable
        Called with the place in the file where an answer is cut, before the connection is closed.
    log : list of (path, range, headers)
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.begin_anew()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def begin_anew(self):
        self.files, self.cuts, self.log, self.lie, self.extra = {}, [], [], 0, {}
        self.has_ranges = self.has_versions = self.has_lengths = True
        self.before = self.at_cut = lambda _: None

    def url(self, path="/p.h5", user=""):
        return f"http://{user}127.0.0.1:{self.server_port}{path}"

    def ranges(self):
        return [range_ for _, range_, _ in self.log]

    def stop(self):
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request, address):
        """Say nothing of a client that has gone."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        """Say nothing."""

    def do_GET(self):
        server, path = self.server, unquote(urlsplit(self.path).path)
        server.log.append((self.path, self.headers["Range"], dict(self.headers)))
        server.before(path)
        content = server.files.get(path, 404)
        if isinstance(content, int | str):
            return self._answer(content)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        told, start, stop = len(content) + server.lie, 0, len(content)
        if asked and server.has_ranges:
            start, stop = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else stop, stop)
            self.send_response(206 if start < told else 416)
            self.send_header(
                "Content-Range", f"bytes {start}-{stop - 1}/{told}" if start < told else f"bytes */{told}"
            )
        else:
            self.send_response(200)
        if server.has_versions:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()[:16]}"')
        for name, value in server.extra.items():
            self.send_header(name, value)
        length = max(0, stop - start) + (0 if server.has_ranges else server.lie)
        if server.has_lengths:
            self.send_header("Content-Length", str(length))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        body = content[start:stop]
        with contextlib.suppress(OSError):
            self.wfile.write(body[:cut])
        if (cut is not None and cut < len(body)) or len(body) < length:
            server.at_cut(start + (cut or 0))
            self.close_connection = True
        return None

    def _answer(self, what):
        self.send_response(what if isinstance(what, int) else 302)
        if isinstance(what, str):
            self.send_header("Location", what)
        self.send_header("Content-Length", "0")
        self.end_headers()
