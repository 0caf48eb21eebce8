"""The HTTP side of the service: routes, OpenAPI and the web page. Independent of Ray."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files as package_files
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Form, HTTPException, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from heartseg.data.camus.names import parse_frame
from heartseg.data.images import FORMATS, Images, stem_of
from heartseg.datasets import DATASETS
from heartseg.metrics.plausibility import CASE_FLAGS, PATIENT_FLAGS
from heartseg.report.colours import COLOURS
from heartseg.serving.answers import Answer, Segmented, clinical, describe
from heartseg.serving.counters import RequestCounter
from heartseg.serving.limits import RequestFilter, is_loopback
from heartseg.serving.service import Service
from heartseg.serving.uploads import read_uploads

READERS = 2  # threads that read files; few, to limit the memory
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
NIFTI_TYPE = "application/gzip"
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "no file, or an empty file"},
    401: {"description": "missing or wrong token"},
    403: {"description": "sent by a browser from a page of another site"},
    408: {"description": "the upload took too long"},
    413: {"description": "too many bytes, frames or pixels, or too many to segment in time"},
    415: {"description": f"not {FORMATS}"},
    422: {"description": "unreadable file, or invalid field"},
    503: {"description": "overloaded; try again"},
}

View = Literal["2CH", "4CH", ""]
Phase = Literal["ED", "ES", ""]
Step = Annotated[float | None, Form(gt=0, lt=1000, allow_inf_nan=False)]


def make_app(service: Service, host: str, token: str | None, poll_s: float) -> ASGIApp:
    """Create the application.

    Args:
        service: Service that segments.
        host: Address on which the server listens.
        token: Token that requests must contain, or None.
        poll_s: Seconds between two checks for a new version.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(service.follow(poll_s))
        yield
        task.cancel()

    # no docs pages, because FastAPI's load scripts from other servers
    app = FastAPI(
        title=f"heartseg: {service.source.model}", docs_url=None, redoc_url=None, lifespan=lifespan
    )
    pool = ThreadPoolExecutor(READERS)
    page = package_files("heartseg.serving").joinpath("page.html").read_text(encoding="utf-8")

    async def in_pool(function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, partial(function, *arguments))

    async def read(uploads: list[UploadFile], reserve: Callable[[int], None]) -> list[Images]:
        if len(uploads) > service.limits.files:
            raise HTTPException(
                413, f"{len(uploads)} files; at most {service.limits.files} are allowed"
            )
        named = [(upload.file, _name(upload)) for upload in uploads]
        return await in_pool(read_uploads, named, service.limits, reserve)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/healthz", summary="Whether the service is ready")
    async def health() -> JSONResponse:
        ready = await asyncio.to_thread(service.network.ready)
        return JSONResponse(
            {
                "status": "ok" if ready else "no network is ready",
                "version": service.current.version,
                "last_update_failed": service.problem is not None,
            },
            200 if ready else 503,
        )

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.counters.text(), media_type="text/plain; version=0.0.4")

    @app.get("/model", summary="The served model and its limits")
    async def model() -> dict[str, Any]:
        current = service.current
        dataset = current.metadata["dataset"]
        return {
            "model": service.source.model,
            "version": current.version,
            "dataset": dataset,
            "structures": {name: COLOURS[name] for name in DATASETS[dataset].structures},
            "flags": CASE_FLAGS,
            "patient_flags": PATIENT_FLAGS,
            "update_problem": service.problem,
            "upload_bytes": service.limits.upload_bytes,
            "files": service.limits.files,
        }

    @app.post("/predict", summary="Contours and measurements", responses=ERRORS)
    async def predict(
        files: Annotated[list[UploadFile], File(description=f"{FORMATS}; up to four")],
        views: Annotated[
            list[View] | None, Form(description="of each file; by default as found in its name")
        ] = None,
        phases: Annotated[
            list[Phase] | None, Form(description="of each file; by default as found in its name")
        ] = None,
        mm_per_row: Step = None,
        mm_per_column: Step = None,
        s_per_column: Step = None,
        species: Annotated[
            Literal["mouse", "human"], Form(description="of M-mode recordings")
        ] = "mouse",
        pictures: Annotated[bool, Form(description="also return the frames as PNG")] = False,
    ) -> Answer:
        """The given spacing is used for apical images whose file has none, and for M-mode."""
        start, current = perf_counter(), service.current
        dataset = current.metadata["dataset"]
        for given in (views, phases):
            if given and len(given) != len(files):
                raise HTTPException(422, f"{len(given)} views or phases for {len(files)} files")
        names = [_name(upload) for upload in files]
        with service.budget.request() as reserve:
            images = await read(files, reserve)
            found = await service.segment(images, names, current, reserve)
            segmented = [
                Segmented(
                    name,
                    *_view(name, views[k] if views else None, phases[k] if phases else None),
                    frames=image.frames,
                    numbers=numbers,
                    labels=labels,
                    **_scale(dataset, image, mm_per_row, mm_per_column, s_per_column),
                    notes=image.notes,
                )
                for k, (name, image, (numbers, labels)) in enumerate(
                    zip(names, images, found, strict=True)
                )
            ]
            described = [
                await in_pool(describe, file, dataset, species, pictures) for file in segmented
            ]
            indices, missing = None, "an M-mode model measures each image separately"
            if DATASETS[dataset].apical:
                indices, missing = await in_pool(clinical, segmented)
        return Answer(
            model=service.source.model,
            version=current.version,
            dataset=dataset,
            seconds=round(perf_counter() - start, 4),
            images=described,
            clinical=indices,
            clinical_missing=missing,
        )

    @app.post(
        "/labels",
        summary="The label map of a file, on the same grid",
        response_class=Response,
        responses=ERRORS | {200: {"content": {NIFTI_TYPE: {}, "image/png": {}}}},
    )
    async def labels(
        file: Annotated[UploadFile, File(description=f"{FORMATS}")],
    ) -> Response:
        current, name = service.current, _name(file)
        with service.budget.request() as reserve:
            (images,) = await read([file], reserve)
            ((_, maps),) = await service.segment([images], [name], current, reserve)
            content = await in_pool(_saved, images, maps)
        kept = "".join(c if c.isalnum() or c in "._-" else "_" for c in stem_of(Path(name)))
        kept = kept.encode("ascii", "replace").decode().replace("?", "_")
        headers = {
            "Content-Disposition": f'attachment; filename="{kept}_seg{images.suffix}"',
            "X-Model-Version": current.version,
        }
        media_type = "image/png" if images.suffix == ".png" else NIFTI_TYPE
        return Response(content, media_type=media_type, headers=headers)

    wrapped: ASGIApp = RequestFilter(app, service.limits, token)
    if is_loopback(host):  # against DNS rebinding
        wrapped = TrustedHostMiddleware(wrapped, ["localhost", "127.0.0.1", host, f"[{host}]"])
    return RequestCounter(wrapped, service.counters, {route.path for route in app.routes})  # type: ignore[attr-defined]


def _name(upload: UploadFile) -> str:
    """Return the file name without the folders that some browsers send."""
    return Path((upload.filename or "file").replace("\\", "/")).name[:200] or "file"


def _view(name: str, view: str | None, phase: str | None) -> tuple[str | None, str | None]:
    """Return the view and phase of the request ("" for unknown), by default those in the name."""
    frame = parse_frame(stem_of(Path(name)))
    if view is None and frame:
        view = frame.view
    if phase is None and frame:
        phase = frame.phase
    return view or None, phase or None


def _scale(
    dataset: str,
    image: Images,
    mm_per_row: float | None,
    mm_per_column: float | None,
    s_per_column: float | None,
) -> dict[str, Any]:
    """Return the scale of a `Segmented`: that of an apical file, else that of the request."""
    apical = DATASETS[dataset].apical
    column = mm_per_column if apical else s_per_column
    if apical and image.spacing:
        return {"spacing": image.spacing, "spacing_source": "file", "no_scale": None}
    if mm_per_row and column:
        return {"spacing": (mm_per_row, column), "spacing_source": "request", "no_scale": None}
    doubt = image.geometry.scale_problem if apical else "mm per row and s per column are not given"
    return {"spacing": None, "spacing_source": None, "no_scale": doubt}


def _saved(images: Images, maps: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="heartseg-") as folder:
        path = Path(folder) / f"labels{images.suffix}"
        images.save(maps, path)
        return path.read_bytes()
