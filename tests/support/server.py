"""A server in a thread, on a free port, for tests that need a socket."""

import threading
import time
from contextlib import contextmanager

from gpt.serve.app import create_app
from gpt.serve.lifecycle import listen, make_server
from gpt.serve.options import ServeOptions


@contextmanager
def running_server(models, **options):
    """Context manager that serves models, {name: (model, tokenizer)}; gives the address and the application.

    `app.state.server` is the server. options: those of `ServeOptions`.
    """
    chosen = ServeOptions(**options)
    app = create_app(models, chosen)
    listener = listen(chosen.host, 0)
    port = listener.getsockname()[1]
    server = make_server(app, chosen)
    app.state.server = server
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server")
    thread.start()
    try:
        end = time.monotonic() + 20
        while not server.started and thread.is_alive():
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{port}", app
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server does not end"
