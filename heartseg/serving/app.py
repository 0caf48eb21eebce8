"""The service's HTTP side: routes, OpenAPI, the page. It knows of no engine."""

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
from heartseg.serving.counters import Counted
from heartseg.serving.limits import Gate, is_loopback
from heartseg.serving.service import Service
from heartseg.serving.uploads import read_uploads

READERS = 2  # threads that read files at a time, which bounds the memory
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
NIFTI_TYPE = "application/gzip"
REASONS: dict[int | str, dict[str, Any]] = {
    400: {"description": "no file, or an empty one"},
    401: {"description": "no token, or a wrong one"},
    403: {"description": "sent by a browser for a page of another site"},
    408: {"description": "the upload took too long"},
    413: {"description": "too many bytes, frames or pixels, or more than can be done in time"},
    415: {"description": f"not {FORMATS}"},
    422: {"description": "a file that cannot be read, or a field that cannot be right"},
    503: {"description": "too much to do; try again"},
}

View = Literal["2CH", "4CH", ""]
Phase = Literal["ED", "ES", ""]
Step = Annotated[float | None, Form(gt=0, lt=1000, allow_inf_nan=False)]


def make_app(service: Service, host: str, token: str | None, every_s: float) -> ASGIApp:
    """The application.

    Args:
        service: the model.
        host: address that it is bound to.
        token: that requests must carry, if any.
        every_s: seconds between looks for a new version.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(service.follow(every_s))
        yield
        task.cancel()

    # FastAPI's pages for the API load scripts from elsewhere
    app = FastAPI(
        title=f"heartseg: {service.source.model}", docs_url=None, redoc_url=None, lifespan=lifespan
    )
    pool = ThreadPoolExecutor(READERS)
    page = package_files("heartseg.serving").joinpath("page.html").read_text(encoding="utf-8")

    async def in_pool(call: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, partial(call, *arguments))

    async def read(uploads: list[UploadFile], take: Callable[[int], None]) -> list[Images]:
        if len(uploads) > service.limits.files:
            raise HTTPException(413, f"{len(uploads)} files; {service.limits.files} are allowed")
        named = [(upload.file, _name(upload)) for upload in uploads]
        return await in_pool(read_uploads, named, service.limits, take)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/healthz", summary="Whether the service can answer")
    async def health() -> JSONResponse:
        ready = await asyncio.to_thread(service.network.ready)
        return JSONResponse(
            {
                "status": "ok" if ready else "no network is ready",
                "version": service.present.version,
                "last_update_failed": service.problem is not None,
            },
            200 if ready else 503,
        )

    @app.get("/metrics", summary="For Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.counters.text(), media_type="text/plain; version=0.0.4")

    @app.get("/model", summary="What answers, and what it takes")
    async def model() -> dict[str, Any]:
        present = service.present
        dataset = present.metadata["dataset"]
        return {
            "model": service.source.model,
            "version": present.version,
            "dataset": dataset,
            "structures": {name: COLOURS[name] for name in DATASETS[dataset].structures},
            "flags": CASE_FLAGS,
            "patient_flags": PATIENT_FLAGS,
            "update_problem": service.problem,
            "upload_bytes": service.limits.upload_bytes,
            "files": service.limits.files,
        }

    @app.post("/predict", summary="Contours and measurements", responses=REASONS)
    async def predict(
        files: Annotated[list[UploadFile], File(description=f"{FORMATS}; up to four")],
        views: Annotated[
            list[View] | None, Form(description="of each file; told by the names otherwise")
        ] = None,
        phases: Annotated[list[Phase] | None, Form(description="likewise")] = None,
        mm_per_row: Step = None,
        mm_per_column: Step = None,
        s_per_column: Step = None,
        species: Annotated[Literal["mouse", "human"], Form(description="M-mode")] = "mouse",
        pictures: Annotated[bool, Form(description="also give the frames as PNG")] = False,
    ) -> Answer:
        """The spacing given is used for apical images whose file does not say, and for M-mode."""
        start, present = perf_counter(), service.present
        dataset = present.metadata["dataset"]
        for given in (views, phases):
            if given and len(given) != len(files):
                raise HTTPException(422, f"{len(given)} views or phases for {len(files)} files")
        names = [_name(upload) for upload in files]
        with service.budget.request() as take:
            images = await read(files, take)
            found = await service.segment(images, names, present, take)
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
                await in_pool(describe, one, dataset, species, pictures) for one in segmented
            ]
            indices, missing = None, "an M-mode model measures each image by itself"
            if DATASETS[dataset].apical:
                indices, missing = await in_pool(clinical, segmented)
        return Answer(
            model=service.source.model,
            version=present.version,
            dataset=dataset,
            seconds=round(perf_counter() - start, 4),
            images=described,
            clinical=indices,
            clinical_missing=missing,
        )

    @app.post(
        "/labels",
        summary="A file's label map, on its own grid",
        response_class=Response,
        responses=REASONS | {200: {"content": {NIFTI_TYPE: {}, "image/png": {}}}},
    )
    async def labels(
        file: Annotated[UploadFile, File(description=f"{FORMATS}")],
    ) -> Response:
        present, name = service.present, _name(file)
        with service.budget.request() as take:
            (images,) = await read([file], take)
            ((_, maps),) = await service.segment([images], [name], present, take)
            content = await in_pool(_saved, images, maps)
        kept = "".join(c if c.isalnum() or c in "._-" else "_" for c in stem_of(Path(name)))
        kept = kept.encode("ascii", "replace").decode().replace("?", "_")
        headers = {
            "Content-Disposition": f'attachment; filename="{kept}_seg{images.suffix}"',
            "X-Model-Version": present.version,
        }
        media_type = "image/png" if images.suffix == ".png" else NIFTI_TYPE
        return Response(content, media_type=media_type, headers=headers)

    whole: ASGIApp = Gate(app, service.limits, token)
    if is_loopback(host):  # a page of elsewhere whose name leads here must not reach it
        whole = TrustedHostMiddleware(whole, ["localhost", "127.0.0.1", host, f"[{host}]"])
    return Counted(whole, service.counters, {route.path for route in app.routes})  # type: ignore[attr-defined]


def _name(upload: UploadFile) -> str:
    """The file's own name, of which browsers may send the folders too."""
    return Path((upload.filename or "file").replace("\\", "/")).name[:200] or "file"


def _view(name: str, view: str | None, phase: str | None) -> tuple[str | None, str | None]:
    """View and phase: what was chosen ("" for neither), else what the name tells."""
    named = parse_frame(stem_of(Path(name)))
    told = (named.view, named.phase) if named else (None, None)
    return (told[0] if view is None else view or None, told[1] if phase is None else phase or None)


def _scale(
    dataset: str,
    image: Images,
    mm_per_row: float | None,
    mm_per_column: float | None,
    s_per_column: float | None,
) -> dict[str, Any]:
    """The scale of a `Segmented`: of an apical image the file's, else what the request gives."""
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
