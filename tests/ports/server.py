"""A real HTTP server on 127.0.0.1 that speaks the OpenAI form and can be told to misbehave."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from loci.core.rng import generator

GOOD = '{"pet": "kitten", "age": 2}'
ANSWERS = [
    GOOD,
    "It is a kitten.",
    '{"pet": "kitten"}',
    '{"pet": "kitten", "age": "two"}',
    '```json\n{"pet": "dog", "age": 7}\n```',
    '["kitten", 2]',
    '{"pet": "cat", "age": 3, "name": "Tom"}',
    "[" * 100_000,
]


class Server:
    """Serves embeddings and chats; `faults` are answers (status, headers, body) given before it behaves again."""

    def __init__(self) -> None:
        self.faults: list[tuple[int, dict[str, str], str]] = []
        self.dim = 16
        self.reset()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def reset(self) -> None:
        """Start the script again and forget what was asked."""
        self.seen: list[dict[str, Any]] = []  # path, headers and body of every request
        self.turn = 0

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        """What to answer to one request."""
        if self.faults:
            return self.faults.pop(0)
        if path == "/v1/embeddings":
            rows = [{"index": place, "embedding": self._row(text)} for place, text in enumerate(body["input"])]
            return 200, {}, json.dumps({"data": rows[::-1]})
        if path != "/v1/chat/completions":
            return 404, {}, "no such path"
        text = ANSWERS[self.turn % len(ANSWERS)] if "response_format" in body else "It is a kitten."
        self.turn += 1
        return 200, {}, chat(text)

    def _row(self, text: str) -> list[float]:
        random = generator(0, text)
        return (3 * random.normal(size=self.dim)).astype(np.float32).tolist()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.seen.append({"path": self.path, "headers": dict(self.headers), "body": body})
                status, headers, text = server.answer(self.path.partition("?")[0], body)
                data = text.encode()
                self.send_response(status)
                for name, value in {"content-length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def chat(text: str | None, *, finish: str = "stop", **message: str) -> str:
    """The body of a chat answer."""
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 21, "completion_tokens": 5, "total_tokens": 26}})
