"""Serve a model as a REST API with a web page that shows contours and measurements of images.

If an alias such as models:/heartseg-camus@champion moves to another version, the service switches
to that version without a restart. The network runs on Ray Serve, on the cluster at RAY_ADDRESS or
on a local one. The service can be reached only from this machine unless --host names another
address, which requires a token.
"""

from __future__ import annotations

import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from heartseg.cli import ModelOrFolder, make_app, paragraphs, positive, run_app, run_command

app = make_app()


def _number(help: str, metavar: str) -> typer.models.OptionInfo:
    return typer.Option(callback=positive, metavar=metavar, help=help)


@app.command(help=paragraphs(__doc__))
def serve(
    model: ModelOrFolder,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, _number("Port to listen on.", "PORT")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the token that requests must carry. Default: the environment "
            "variable HEARTSEG_SERVE_TOKEN.",
        ),
    ] = None,
    replicas: Annotated[
        int, _number("Processes that run the network, each on a GPU if there are any.", "N")
    ] = 1,
    batch_size: Annotated[int, _number("Maximum number of images in a batch.", "N")] = 8,
    batch_wait_ms: Annotated[
        float, _number("Time that the first image of a batch waits for others.", "MS")
    ] = 2.0,
    poll_s: Annotated[float, _number("Time between checks for a new version.", "S")] = 15.0,
    max_upload_mib: Annotated[float, _number("Maximum size of a request.", "MIB")] = 64.0,
    upload_timeout_s: Annotated[
        float, _number("Time within which a request must have arrived.", "S")
    ] = 30.0,
) -> None:
    from heartseg.serving.limits import Limits, read_token

    token = read_token(host, token_file)
    limits = Limits(round(max_upload_mib * 2**20), upload_timeout_s)

    from heartseg.serving.source import Source

    source = Source(model)
    first = source.fetch_newer(None)  # reports a wrong model before anything starts
    assert first is not None

    from heartseg.serving.app import make_app as make_service_app
    from heartseg.serving.listen import listen, open_socket
    from heartseg.serving.ray_app import RayNetwork
    from heartseg.serving.service import Service

    with open_socket(host, port) as socket, tempfile.TemporaryDirectory() as logs:
        log = Path(logs) / "ray.log"
        with RayNetwork(replicas, batch_size, batch_wait_ms / 1000, log) as network:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has its own handler
            service = Service(source, first, network, limits)
            listen(make_service_app(service, host, token, poll_s), socket)


main = partial(run_app, app, "heartseg serve")

if __name__ == "__main__":
    run_command(main)
