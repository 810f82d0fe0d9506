# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Amazon's S3 as moto imitates it, as a program of its own, with signatures checked.

It prints its port, and ends when its standard input does. With a certificate and its key as
arguments it also listens for TLS, and prints that port in a second line. Besides S3 it answers
``POST /_older?seconds=N``, which makes all objects older.
"""

from __future__ import annotations

import os
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

ACCESS_KEY = "mykey"
SECRET_KEY = "mysecret"
ACCOUNT = "123456789012"

_EVERYTHING = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
)


def add_user() -> None:
    """Make the one user there is, who may do everything, and require signatures from now on."""
    from moto import settings
    from moto.iam.models import iam_backends

    iam = iam_backends[ACCOUNT]["aws"]
    iam.create_user("aws", "user")
    iam.put_user_policy("user", "everything", _EVERYTHING)
    key = iam.create_access_key("user")
    del iam.access_keys[key.access_key_id]
    key.access_key_id, key.secret_access_key = ACCESS_KEY, SECRET_KEY
    iam.access_keys[ACCESS_KEY] = key
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0


def with_time_machine(application: Application) -> Application:
    """Let objects be made older."""
    from urllib.parse import parse_qs

    from moto.s3.models import s3_backends

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/_older":
            return application(environ, start_response)
        seconds = float(parse_qs(environ["QUERY_STRING"])["seconds"][0])
        for bucket in s3_backends[ACCOUNT]["aws"].buckets.values():
            for key in bucket.keys.values():
                key.last_modified -= timedelta(seconds=seconds)
        start_response("204 No Content", [])
        return []

    return answer


def main() -> None:
    """Serve."""
    os.environ["S3_IGNORE_SUBDOMAIN_BUCKETNAME"] = "true"
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, code: object = "-", size: object = "-") -> None:
            pass

    add_user()
    application = with_time_machine(DomainDispatcherApplication(create_backend_app))
    for context in (None, tuple(sys.argv[1:])) if sys.argv[1:] else (None,):
        server = make_server(
            "127.0.0.1",
            0,
            application,
            threaded=True,
            request_handler=Quiet,
            ssl_context=context,  # type: ignore[arg-type]
        )
        print(server.server_port, flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
