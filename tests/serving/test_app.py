"""The HTTP side of `heartseg serve`, over real connections, with a network that thresholds."""

from __future__ import annotations

import gzip
import io
import re
import socket
import struct
import threading
import time
import zlib

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from heartseg.datasets.camus import Camus
from heartseg.evaluation.clinical import clinical_indices
from heartseg.serving.app import PAGE_POLICY
from heartseg.serving.limits import Limits
from heartseg.serving.service import Unavailable
from tests.serving.running import GRAYS, LIMITS, nifti, png, running

pytestmark = pytest.mark.slow

SPACING = (0.5, 0.75)  # exact as float32 too
AFFINE = np.diag([-SPACING[1], -SPACING[0], 1, 1])


@pytest.fixture(scope="module")
def service():
    with running() as client:
        yield client


def heart(height=40, width=30):
    """A gray image (H, W) that the network segments as a ventricle, its wall and an atrium."""
    labels = np.zeros((120, 90), np.uint8)
    labels[8 : 20 + height, 10 : 20 + width] = Camus.MYO
    labels[16 : 20 + height, 16 : 14 + width] = Camus.LV
    labels[20 + height : 35 + height, 16 : 14 + width] = Camus.LA
    pixels = np.full(labels.shape, 20, np.uint8)
    for label, gray in GRAYS.items():
        pixels[labels == label] = gray
    return labels, pixels


def test_contours_measurements_and_picture_of_a_nifti_file(service):
    labels, pixels = heart()
    answer = service.predict({"x.nii": nifti(pixels, AFFINE)}, pictures="true").json()
    assert (answer["version"], answer["dataset"]) == ("1", "camus")
    (image,) = answer["images"]
    assert (image["height"], image["width"]) == (120, 90)
    assert image["spacing"] == pytest.approx(SPACING)
    (frame,) = image["frames"]
    outline = {c["structure"]: np.array(c["points"]) for c in frame["contours"]}
    assert set(outline) == {"LV", "LVepi", "LA"}
    rows, columns = np.nonzero(labels == Camus.LV)
    for axis, places in ((0, columns), (1, rows)):  # x, y from the corner of the first pixel
        assert outline["LV"][:, axis].min() == places.min()
        assert outline["LV"][:, axis].max() == places.max() + 1
    area = np.sum(labels == Camus.LV) * SPACING[0] * SPACING[1]
    assert frame["measured"]["lv_area_mm2"] == pytest.approx(area)
    kind, content = frame["picture"].split(",")
    assert kind == "data:image/png;base64"
    import base64

    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    np.testing.assert_array_equal(np.array(picture), pixels)


FOUR = {
    ("2CH", "ED"): (60, 40),
    ("2CH", "ES"): (50, 30),
    ("4CH", "ED"): (58, 38),
    ("4CH", "ES"): (52, 28),
}


def four(patients=("patient0007",) * 4, ending=".nii.gz"):
    files = {}
    for patient, ((view, phase), size) in zip(patients, FOUR.items(), strict=True):
        pixels = heart(*size)[1]
        content = png(pixels) if ending == ".png" else nifti(pixels, AFFINE, ending)
        files[f"{patient}_{view}_{phase}{ending}"] = content
    return files


def expected():
    return clinical_indices({key: (heart(*size)[0], SPACING) for key, size in FOUR.items()})


def test_volumes_and_ef_of_four_views_named_as_in_camus(service):
    answer = service.predict(four()).json()
    assert answer["clinical_missing"] is None
    for name in ("edv_ml", "esv_ml", "ef_percent"):
        assert answer["clinical"][name] == pytest.approx(expected()[name])
    assert 0 < answer["clinical"]["ef_percent"] < 100
    assert answer["clinical"]["edge"] is False
    assert answer["clinical"]["plausible"] is expected()["plausible"]


def test_frames_and_patient_are_flagged(service):
    files = four()
    cut = heart(60, 40)[1][:, 25:]
    first, *others = files
    files[first] = nifti(cut, AFFINE, ".nii.gz")
    answer = service.predict(files).json()
    assert answer["clinical"]["edge"] is True
    assert answer["clinical"]["plausible"] is False
    flags = {image["name"]: image["frames"][0]["flags"] for image in answer["images"]}
    assert flags[first]["edge"] is True
    assert flags[first]["plausible"] is False
    assert not any(flags[name]["edge"] for name in others)
    assert all(image["no_scale"] is None for image in answer["images"])
    described = service.get("/model").json()
    assert set(flags[first]) - {"plausible"} <= set(described["flags"])
    assert {"edge", "size", "scales_differ", "phases"} == set(described["patient_flags"])


def test_volumes_of_pngs_with_views_and_spacing_given(service):
    files = dict(zip("abcd", four(ending=".png").values(), strict=True))
    fields = {"views": [v for v, _ in FOUR], "phases": [p for _, p in FOUR]}
    without = service.predict(files, **fields).json()
    square = clinical_indices({key: (heart(*size)[0], (1.0, 1.0)) for key, size in FOUR.items()})
    assert without["clinical"]["ef_percent"] == pytest.approx(square["ef_percent"])
    assert not [name for name in without["clinical"] if name.endswith("_ml")]
    assert "a, b, c, d" in without["clinical_missing"]
    for image in without["images"]:
        assert image["spacing"] is None
        assert image["no_scale"]
        assert not [name for name in image["frames"][0]["measured"] if "mm" in name]
    spacing = {"mm_per_row": SPACING[0], "mm_per_column": SPACING[1]}
    answer = service.predict(files, **fields, **spacing).json()
    assert answer["clinical"]["ef_percent"] == pytest.approx(expected()["ef_percent"])
    assert {image["spacing_source"] for image in answer["images"]} == {"request"}
    answer = service.predict(four(), **spacing).json()
    assert {image["spacing_source"] for image in answer["images"]} == {"file"}


def test_the_given_spacing_is_used_for_a_nifti_file_without_one(service):
    labels, pixels = heart()
    content = bytearray(nifti(pixels, AFFINE))
    content[80:88] = bytes(8)
    given = {"mm_per_row": SPACING[0], "mm_per_column": SPACING[1]}
    area = np.sum(labels == Camus.LV) * SPACING[0] * SPACING[1]
    for fields, spacing, expected in (({}, None, {}), (given, SPACING, {"lv_area_mm2": area})):
        (image,) = service.predict({"x.nii": bytes(content)}, **fields).json()["images"]
        assert image["spacing"] == (None if spacing is None else pytest.approx(spacing))
        measured = image["frames"][0]["measured"]
        assert {key: measured.get(key) for key in expected} == pytest.approx(expected)
        assert bool(measured) == bool(expected)


def test_no_volumes_of_several_patients_or_without_a_view(service):
    several = service.predict(four(("patient0001",) * 3 + ("patient0002",))).json()
    assert several["clinical"] is None
    assert "patient0001, patient0002" in several["clinical_missing"]
    three = dict(list(four().items())[:3])
    assert "4CH ES" in service.predict(three).json()["clinical_missing"]


def test_a_sequence_is_answered_frame_by_frame_with_volumes(service):
    frames = np.stack([heart(*size)[1] for size in ((60, 40), (55, 35), (50, 30))])
    answer = service.predict({"x.nii.gz": nifti(frames, AFFINE, ".nii.gz")}).json()
    (image,) = answer["images"]
    assert [frame["number"] for frame in image["frames"]] == [1, 2, 3]
    areas = [frame["measured"]["lv_area_mm2"] for frame in image["frames"]]
    assert areas == sorted(areas, reverse=True)
    assert (image["summary"]["ed_frame"], image["summary"]["es_frame"]) == (1, 3)
    assert 0 < image["summary"]["ef_percent"] < 100


def test_a_label_map_lies_on_the_grid_of_its_file(service):
    labels, pixels = heart()
    affine = np.array([[0.3, -0.4, 0, 5], [0.2, 0.1, -0.7, 6], [0.1, 0.0, 0.9, 7], [0, 0, 0, 1]])
    answer = service.labels("pa tient\n.nii.gz", nifti(pixels, affine, ".nii.gz"))
    assert answer.headers["X-Model-Version"] == "1"
    assert 'filename="pa_tient' in answer.headers["Content-Disposition"]
    image = nib.Nifti1Image.from_bytes(gzip.decompress(answer.content))
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, labels)
    answer = service.labels("x.png", png(pixels))
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(answer.content))), labels)


def test_m_mode_gives_diameters_where_the_spacing_is_given():
    columns = np.arange(400)
    half = 30 + 10 * np.cos(2 * np.pi * columns / 100)  # diameter 80 to 40 rows
    rows = np.arange(128)[:, None]
    window = np.where(np.abs(rows - 63.5) < half, GRAYS[1], 0).astype(np.uint8)
    with running(dataset="mmode") as client:
        answer = client.predict({"w.png": png(window)}, mm_per_row=0.05, s_per_column=0.001).json()
        without = client.predict({"w.png": png(window)}).json()
    summary = answer["images"][0]["summary"]
    assert summary["lvidd_mm"] == pytest.approx(4.0, abs=0.1)
    assert summary["lvids_mm"] == pytest.approx(2.0, abs=0.15)
    assert summary["hr_bpm"] == pytest.approx(600, rel=0.02)
    assert without["images"][0]["summary"] == {}
    assert without["images"][0]["frames"][0]["contours"]


def test_a_quality_model_measures_no_heart():
    window = np.full((128, 400), GRAYS[1], np.uint8)  # all of it bad
    with running(dataset="mmode-quality") as client:
        fields = {"mm_per_row": 0.05, "s_per_column": 0.001}
        (image,) = client.predict({"w.png": png(window)}, **fields).json()["images"]
    assert image["summary"] == {}
    assert [c["structure"] for c in image["frames"][0]["contours"]] == ["BAD"]


def test_a_model_of_sequences_refuses_a_single_image():
    with running(channels=20) as client:
        answer = client.predict({"x.png": png(heart()[1])})
        frames = np.stack([heart(*size)[1] for size in ((60, 40), (55, 35), (50, 30))])
        ends = client.predict({"x.nii": nifti(frames, AFFINE)}).json()
    assert answer.status_code == 422
    assert "takes sequences" in answer.json()["detail"]
    assert [frame["number"] for frame in ends["images"][0]["frames"]] == [1, 3]


# --- what is refused ------------------------------------------------------------------------


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_bomb():
    """50,000 x 50,000 pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def nifti_claim(shape):
    """A gzipped NIfTI file whose header states more pixels than there are."""
    header = nib.Nifti1Image(np.zeros((20, 20), np.uint8), np.eye(4)).header
    header.set_data_shape(shape)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return gzip.compress(header.binaryblock + bytes(1000))


def dicom(deflated=False, frames=1, rows=64):
    meta = pydicom.dataset.FileMetaDataset()
    plain, small = pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.DeflatedExplicitVRLittleEndian
    meta.TransferSyntaxUID = small if deflated else plain
    meta.MediaStorageSOPClassUID = pydicom.uid.UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = rows, 64, frames
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelSpacing = [0.5, 0.25]
    dataset.PixelData = np.full((64, 64), GRAYS[1], np.uint8).tobytes()
    content = io.BytesIO()
    pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    return content.getvalue()


REFUSED = {
    "empty": (b"", 400, "is empty"),
    "words": (b"no picture at all" * 30, 415, "is not a NIfTI"),
    "zipped words": (gzip.compress(b"no picture" * 90), 415, "is not a NIfTI"),
    "broken gzip": (b"\x1f\x8b" + bytes(50), 415, "is not a NIfTI"),
    "broken jpeg": (b"\xff\xd8\xff\xe0" + bytes(400), 422, "cannot be read"),
    "half a png": (png(heart()[1])[:150], 422, "cannot be read"),
    "png of nothing": (b"\x89PNG\r\n\x1a\n", 422, "cannot be read"),
    "png bomb": (png_bomb(), 413, "more pixels"),
    "nifti bomb": (nifti_claim((30_000, 30_000)), 413, "30000 x 30000"),
    "long nifti": (nifti_claim((100, 100, 1, 30_000)), 413, "30000 frames"),
    "large nifti": (nifti_claim((1000, 1000, 100)), 413, "100 frame(s) of 1000 x 1000"),
    "cut nifti": (nifti_claim((100, 100)), 422, "cannot be read"),
    "line": (nifti_claim((100,)), 422, "(100,)"),
    "tiny": (png(np.zeros((8, 60), np.uint8)), 422, "8 x 60"),
    "nan": (nifti(np.full((40, 40), np.nan), AFFINE), 422, "NaN"),
    "deflated dicom": (dicom(deflated=True), 422, "deflated"),
    "long dicom": (dicom(frames=4000), 413, "4000 frames"),
    "large dicom": (dicom(rows=60_000, frames=20), 413, "60000 x 64"),
    "no dicom": (bytes(128) + b"DICM" + b"x" * 300, 422, "contains no image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_files_are_refused_with_a_reason(service, name):
    content, status, reason = REFUSED[name]
    answer = service.predict({"../some/scan.nii": content})
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"].startswith("scan.nii: ")
    assert reason in answer.json()["detail"]
    assert "/tmp" not in answer.text


def test_a_dicom_file_is_recognised_by_its_content(service):
    answer = service.predict({"IM0001": dicom()}).json()
    (image,) = answer["images"]
    assert image["spacing"] == [0.5, 0.25]
    assert image["frames"][0]["measured"]["lv_area_mm2"] == pytest.approx(64 * 64 * 0.125)


def test_wrong_fields_and_too_many_files_are_refused(service):
    picture = png(heart()[1])
    assert service.predict({f"{k}.png": picture for k in range(5)}).status_code == 413
    for fields in (
        {"views": "3CH"},
        {"views": ["2CH", "4CH"]},
        {"mm_per_row": "-1"},
        {"mm_per_row": "nan"},
        {"species": "fish"},
    ):
        assert service.predict({"x.png": picture}, **fields).status_code == 422, fields
    assert service.predict({}).status_code in (400, 422)
    assert service.get("/predict").status_code == 405


def test_a_large_body_is_refused_by_its_announced_length(service):
    answer = service.labels("x.nii", bytes(LIMITS.upload_bytes))
    assert (answer.status_code, answer.json()["detail"]) == (413, "more than 1 MiB")


HEAD = (
    b"POST /labels HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
)
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def chunked(content):
    return b"%x\r\n%s\r\n" % (len(content), content)


def test_an_endless_body_is_stopped_at_the_limit(service):
    sent = 0
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(HEAD + chunked(PART))
        try:
            while sent < 64 * LIMITS.upload_bytes:
                connection.sendall(chunked(bytes(65536)))
                sent += 65536
        except OSError:  # the service has hung up
            pass
        else:
            pytest.fail("the service took it all")
    counted = {
        sample.labels["status"]
        for family in text_string_to_metric_families(service.get("/metrics").text)
        for sample in family.samples
        if sample.name == "heartseg_requests_total"
    }
    assert "413" in counted


def test_a_slow_body_is_refused():
    with (
        running(Limits(upload_bytes=1 << 20, upload_s=0.2)) as client,
        socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection,
    ):
        connection.sendall(HEAD + chunked(PART))
        answer = connection.recv(1000)
    assert b" 408 " in answer.splitlines()[0]


def test_requests_with_another_host_name_are_refused(service):
    """After DNS rebinding, a browser takes the service for the server of another page."""
    assert service.get("/model", headers={"Host": "evil.example"}).status_code == 400
    assert service.get("/model", headers={"Host": f"localhost:{service.port}"}).status_code == 200


def test_an_ipv6_address_is_accepted_in_brackets():
    with running(host="::1") as client:
        assert client.get("/model").status_code == 200
        assert client.get("/model", headers={"Host": "[::2]"}).status_code == 400


def test_without_the_token_nothing_is_answered():
    token = "correct-horse-battery"
    with running(token=token) as client:
        for path in ("/", "/healthz", "/openapi.json"):
            assert client.get(path).status_code == 200
        for path in ("/model", "/metrics", "/absent"):
            assert client.get(path).status_code == 401
        for given in ("", "Bearer ", f"Bearer {token}x", f"Basic {token}", "Bearer \u00e9"):
            headers = {"Authorization": given.encode("latin-1")}
            assert client.labels("x.png", b"", headers=headers).status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert client.labels("x.png", png(heart()[1]), headers=headers).status_code == 200
        assert client.get("/metrics", headers=headers).status_code == 200


# --- versions and faults ----------------------------------------------------------------------


def test_a_new_version_serves_new_requests_only():
    picture = png(heart()[1])
    with running() as client:
        client.network.hold = "1"
        answers = []
        began = threading.Thread(target=lambda: answers.append(client.labels("x.png", picture)))
        began.start()
        client.network.waiting.wait(10)
        client.source.newest = client.source.version("2")
        client.service.update()
        assert client.predict({"x.png": picture}).json()["version"] == "2"
        assert client.get("/model").json()["version"] == "2"
        client.network.go.set()
        began.join()
        assert answers[0].headers["X-Model-Version"] == "1"
        assert 'heartseg_model_info{model="models:/test@champion",version="2"} 1.0' in (
            client.get("/metrics").text
        )


@pytest.mark.parametrize("newest", ["broken", ConnectionError("postgresql://me:secret@host")])
def test_a_version_that_cannot_be_loaded_keeps_the_current_one(newest):
    with running() as client:
        source = client.source
        source.newest = source.version("2", b"broken") if newest == "broken" else newest
        client.service.update()
        assert client.predict({"x.png": png(heart()[1])}).json()["version"] == "1"
        assert client.get("/healthz").json()["last_update_failed"] is True
        problem = client.get("/model").json()["update_problem"]
        assert problem in ("the weights are broken", "ConnectionError")
        source.newest = source.version("3")
        client.service.update()
        health = client.get("/healthz").json()
        assert health == {"status": "ok", "version": "3", "last_update_failed": False}


def test_too_many_concurrent_requests_are_refused():
    picture = png(heart()[1])
    with running(Limits(upload_bytes=1 << 20, upload_s=20, uploads=1)) as client:
        client.network.hold = "1"
        first = threading.Thread(target=lambda: client.labels("x.png", picture))
        first.start()
        client.network.waiting.wait(10)
        answer = client.labels("x.png", picture)
        client.network.go.set()
        first.join()
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert client.labels("x.png", picture).status_code == 200


def test_a_dead_or_slow_network_gives_503():
    with running(Limits(upload_bytes=1 << 20, upload_s=20, answer_s=0.1)) as client:
        client.network.fault = Unavailable()
        assert client.labels("x.png", png(heart()[1])).status_code == 503
        assert client.get("/healthz").status_code == 503
        client.network.fault = None
        client.network.hold = "1"
        start = time.monotonic()
        assert client.labels("x.png", png(heart()[1])).status_code == 503
        assert time.monotonic() - start < 10


def test_metrics_count_requests_and_batches(service):
    def read():
        families = text_string_to_metric_families(service.get("/metrics").text)
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }

    before = read()
    service.labels("x.png", png(heart()[1]))
    service.labels("x.png", b"nothing")
    service.get("/etc/passwd")
    after = read()
    for key, more in {
        ("heartseg_requests_total", "/labels", "200"): 1,
        ("heartseg_requests_total", "/labels", "415"): 1,
        ("heartseg_requests_total", "404", "other"): 1,
        ("heartseg_request_seconds_count", "/labels"): 2,
        ("heartseg_batch_size_sum",): 2,
    }.items():
        assert after.get(key, 0) - before.get(key, 0) == more, key


def test_openapi_and_a_page_that_loads_nothing_from_elsewhere(service):
    described = service.get("/openapi.json").json()
    assert set(described["paths"]) == {"/healthz", "/metrics", "/model", "/predict", "/labels"}
    assert {"400", "401", "408", "413", "415", "422", "503"} <= set(
        described["paths"]["/predict"]["post"]["responses"]
    )
    page = service.get("/")
    assert page.headers["Content-Security-Policy"].endswith(PAGE_POLICY)
    assert set(re.findall(r"https?://[^\"'\s]+", page.text)) == {"http://www.w3.org/2000/svg"}
    assert service.get("/docs").status_code == 404
