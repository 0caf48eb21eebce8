"""Serve a model: REST, and a page that shows contours and numbers of what is dropped on it.

MODEL is a registered model or a folder made by `heartseg pull`. Where an alias (…@champion) moves
to another version, that one answers from then on; no restart is needed. The network runs on Ray
Serve, on the cluster at RAY_ADDRESS or a local one. Only this machine can reach the service,
unless --host says otherwise, which takes a token.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from heartseg.cli import positive, run_command


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="heartseg serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="models:/heartseg-camus@champion, or a pulled folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=positive(int), default=8000, help="(%(default)s)")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="requests must carry this file's content; HEARTSEG_SERVE_TOKEN otherwise",
    )
    parser.add_argument(
        "--replicas",
        type=positive(int),
        default=1,
        help="processes with the network; each takes a GPU, if there are any (%(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive(int),
        default=8,
        help="images that go through the network at once, at most (%(default)s)",
    )
    parser.add_argument(
        "--batch-wait-ms",
        type=positive(float),
        default=2.0,
        help="that the first image of a batch waits for others (%(default)s)",
    )
    parser.add_argument(
        "--poll-s",
        type=positive(float),
        default=15.0,
        help="seconds between looks for a new version (%(default)s)",
    )
    parser.add_argument(
        "--max-upload-mib",
        type=positive(float),
        default=64.0,
        help="that a request may have (%(default)s)",
    )
    parser.add_argument(
        "--upload-timeout-s",
        type=positive(float),
        default=30.0,
        help="after which it must have come (%(default)s)",
    )
    options = parser.parse_args(argv)

    from heartseg.serving.limits import Limits, read_token

    token = read_token(options.host, options.token_file)
    limits = Limits(round(options.max_upload_mib * 2**20), options.upload_timeout_s)

    from heartseg.serving.source import Source

    source = Source(options.model)
    first = source.fetch_newer(None)  # what is wrong with it is told before anything starts
    assert first is not None

    from heartseg.serving.app import make_app
    from heartseg.serving.listen import listen, open_socket
    from heartseg.serving.ray_app import RayNetwork
    from heartseg.serving.service import Service

    with open_socket(options.host, options.port) as socket, tempfile.TemporaryDirectory() as logs:
        log = Path(logs) / "ray.log"
        wait_s = options.batch_wait_ms / 1000
        with RayNetwork(options.replicas, options.batch_size, wait_s, log) as network:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has its own
            service = Service(source, first, network, limits)
            listen(make_app(service, options.host, token, options.poll_s), socket)


if __name__ == "__main__":
    run_command(main)
