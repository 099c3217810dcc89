"""Does what the path says; for gunicorn and uWSGI."""

import os
import sys
import time

# A worker of gunicorn's is said to boot some time before it can take a request.
print("loaded by", os.getpid(), file=sys.stderr, flush=True)


def application(environ, start_response):
    path = environ["PATH_INFO"].strip("/")
    print(path, "from", os.getpid(), file=sys.stderr, flush=True)
    if path in ("stuck", "unread"):
        wait()
    if path == "half":
        start_response("200 OK", [("Content-Length", "100")])
        return half()
    start_response("200 OK", [("Content-Length", "4")])
    return [b"good"]


def half():
    yield b"half"
    wait()


def wait():
    # Longer than any test.
    time.sleep(600)
