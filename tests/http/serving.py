"""A real server on a real port, in a thread; what a test asks of it goes over a socket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from loci.app.http.app import create
from loci.app.http.door import listening, server
from loci.records import Memory


@contextlib.contextmanager
def running(memory: Memory, app: Any = None, *, head_s: float = 10.0, **options: Any) -> Iterator[str]:
    """Serve a memory (or an app of one) until the end of the block; the url."""
    with listening("127.0.0.1", 0) as door:
        web = server(app or create(memory, **({"open_access": True} | options)), grace=5, head_s=head_s)
        thread = threading.Thread(target=web.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            web.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the server did not stop"
