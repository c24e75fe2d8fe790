"""A stand-in for `vllm serve` behind a router: an endless stream of numbered events, and /health.

`python token_worker.py PORT`. It tests routers, which look at headers, connections and health only;
real vLLM behind them is tests/e2e's.
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PERIOD = 0.02  # seconds between events


class Worker(BaseHTTPRequestHandler):
    """Each answer names the port that gave it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """/health."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """Events until the caller goes."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("X-Worker", str(self.server.server_address[1]))
        self.send_header("Connection", "close")
        self.end_headers()
        number = 0
        try:
            while True:
                self.wfile.write(f"data: {number}\n\n".encode())
                number += 1
                time.sleep(PERIOD)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Says nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Worker).serve_forever()
