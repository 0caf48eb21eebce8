"""Files written by other programs are read correctly, or refused with the cause."""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import tarfile
import unicodedata
import zlib
from fractions import Fraction
from pathlib import Path

import av
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from fastapi import HTTPException
from PIL import Image

from heartseg.checks.dataset import check_cases
from heartseg.config.params import Params
from heartseg.data.camus import reader as camus
from heartseg.data.images import read_images
from heartseg.data.phantoms.recording import make_dicom
from heartseg.data.species import MOUSE
from heartseg.data.strips.folder import find_recordings
from heartseg.data.strips.recordings import Defaults, read_recording
from heartseg.data.windows import reader as mmode
from heartseg.errors import InputError, catch_write_errors
from heartseg.prediction.files import find_jobs
from heartseg.serving.limits import Limits
from heartseg.serving.uploads import read_uploads
from tests.data.raw import AFFINE, echo, write_nifti, write_patient, write_windows

GRAY = echo()[0]
FRAMES = [np.roll(np.tile(GRAY, (2, 2)), 3 * shift, 1) for shift in range(4)]


def png(values: np.ndarray, colour_type: int) -> bytes:
    """Return a PNG file of values uint16 (H, W, C)."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# --- pictures -----------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "colour_type"), [(2, 4), (3, 2), (4, 6)])
def test_16_bit_colours_are_read_or_refused(
    tmp_path: Path, channels: int, colour_type: int
) -> None:
    """Pillow keeps only the high byte, so 12 bits in 16 give a black image."""
    path = tmp_path / "a.png"
    for factor in (257, 16):
        values = np.repeat(GRAY[..., None].astype(np.uint16) * factor, channels, -1)
        if channels in (2, 4):
            values[..., -1] = 65535
        path.write_bytes(png(values, colour_type))
        if factor == 257:
            assert (read_images(path).frames == GRAY).all()
        else:
            with pytest.raises(InputError, match=r"a\.png: has 16 bits per colour channel"):
                read_images(path)


def test_animated_png_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(frame) for frame in FRAMES]
    pages[0].save(tmp_path / "a.png", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="animated PNG of 4 frames"):
        read_images(tmp_path / "a.png")


def test_image_and_label_map_follow_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path, labels = tmp_path / "a.png", echo()[1]
    Image.fromarray(np.rot90(GRAY)).save(path, exif=exif)
    images = read_images(path)
    assert (images.frames == GRAY).all()
    assert any("EXIF" in note for note in images.notes)
    images.save(labels[None], tmp_path / "map.png")
    assert (np.asarray(Image.open(tmp_path / "map.png")) == labels).all()


def test_tiff_of_more_than_16_bits_and_bigtiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(GRAY.astype(np.int32) * 1000).save(path)
    spread = (GRAY.astype(float) - GRAY.min()) * 255 / (int(GRAY.max()) - int(GRAY.min()))
    assert (read_images(path).frames == np.rint(spread)).all()
    Image.fromarray(GRAY / np.float32(255)).save(path)
    assert not read_images(path).notes  # it has no 16 bits
    Image.fromarray(GRAY).save(path, big_tiff=True)
    assert path.read_bytes()[2] == 43
    assert (read_images(path).frames == GRAY).all()


# --- other files with the name of an image ------------------------------------------------


def tar(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("a.nii")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def without_preamble() -> bytes:
    stream = io.BytesIO()
    make_dicom([GRAY], 1.0, 1.0).save_as(stream, enforce_file_format=True)
    return stream.getvalue()[132:]


NIFTI = nib.Nifti1Image(GRAY.T, AFFINE).to_bytes()
PAIR = NIFTI[:344] + b"ni1\0" + NIFTI[348:]
OTHERS = {
    "zip": (b"PK\3\4" + bytes(50), "ZIP"),
    "bzip2": (b"BZh9" + bytes(50), "bzip2"),
    "gzip twice": (gzip.compress(gzip.compress(NIFTI)), "gzip.*gzip"),
    "tar": (gzip.compress(tar(NIFTI)), "tar archive"),
    "DICOM in gzip": (gzip.compress(bytes(128) + b"DICM" + bytes(9)), "DICOM"),
    "NRRD": (b"NRRD0004\ntype: uchar\n", "NRRD"),
    "GIF": (b"GIF89a" + bytes(50), "GIF"),
    "a web page": (b"\n<!DOCTYPE html><html>", "web page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "DICOM without preamble": (without_preamble(), "DICOM.*preamble"),
    "a header of Analyze": (PAIR, "Analyze"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_unsupported_file_is_named_by_its_format(tmp_path: Path, kind: str) -> None:
    data, reason = OTHERS[kind]
    path = tmp_path / "a.nii.gz"
    path.write_bytes(data)
    with pytest.raises(InputError, match=reason) as caught:
        read_images(path)
    assert "damaged" not in str(caught.value)


# --- scale and time -----------------------------------------------------------------------


def test_unusual_nifti_sizes_are_noted_and_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(NIFTI)
    struct.pack_into("<2f", data, 80, -3.0, -5.0)
    struct.pack_into("<2h", data, 252, 0, 0)  # no affine
    (tmp_path / "a.nii").write_bytes(data)
    images = read_images(tmp_path / "a.nii")
    assert images.spacing == (5.0, 3.0)
    assert any("negative" in note for note in images.notes)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("third", "noted"), [(3.0, True), (1.0, False), (0.02, False)])
def test_volume_read_as_sequence_is_noted(tmp_path: Path, third: float, noted: bool) -> None:
    stored = np.stack([frame.T for frame in FRAMES] * 3, -1)
    nib.save(nib.Nifti1Image(stored, np.diag([-3.0, -3.0, third, 1.0])), tmp_path / "a.nii")
    assert any("volume" in note for note in read_images(tmp_path / "a.nii").notes) == noted


def test_metaimage_with_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(GRAY.tobytes())
    height, width = GRAY.shape
    (tmp_path / "a.mhd").write_text(
        f"NDims = 2\nDimSize = {width} {height}\nElementSpacing = 0,3 0,5\n"
        "ElementType = MET_UCHAR\nElementDataFile = a.raw\n"
    )
    with pytest.raises(InputError, match=r"ElementSpacing = '0,3 0,5'.*decimal point"):
        read_images(tmp_path / "a.mhd")


def test_damaged_compressed_metaimage_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """ITK only prints "Uncompress failed"."""
    noise = np.random.default_rng(0).integers(0, 9, (64, 80)).astype(np.uint8)
    for name in ("a.mha", "b.mhd"):
        image = sitk.GetImageFromArray(noise)
        image.SetSpacing((0.5, 0.5))
        sitk.WriteImage(image, str(tmp_path / name), useCompression=True)
        assert (read_images(tmp_path / name).frames == noise).all()
    for name, packed in (("a.mha", "a.mha"), ("b.mhd", "b.zraw")):
        good = (tmp_path / packed).read_bytes()
        for broken in (good[:-1], good[:-300], good[:-500] + b"\0" + good[-499:]):
            (tmp_path / packed).write_bytes(broken)
            with pytest.raises(InputError, match=f"{packed} does not contain"):
                read_images(tmp_path / name)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("times", "rate"), [((0, 20, 40, 60), 50), ((0, 20, 220, 240), None)])
def test_video_has_frame_rate_only_if_frames_are_evenly_spaced(
    tmp_path: Path, times: tuple[int, ...], rate: float | None
) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=50)
        stream.height, stream.width = FRAMES[0].shape
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time, pixels in zip(times, FRAMES, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    images = read_images(path)
    assert len(images.frames) == 4
    assert images.frame_rate == (pytest.approx(rate) if rate else None)
    assert any("20 to 200 ms" in note for note in images.notes) == (rate is None)


@pytest.mark.parametrize(("milliseconds", "rate"), [("20", 50), ("20000", None), ("0", None)])
def test_implausible_frame_time_is_ignored(
    tmp_path: Path, milliseconds: str, rate: int | None
) -> None:
    made = make_dicom([GRAY, GRAY], 1.0, 1.0)
    made.FrameTime = milliseconds
    del made.SequenceOfUltrasoundRegions
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert read_images(tmp_path / "a.dcm").frame_rate == rate


# --- uploads ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "status", "reason"),
    [
        ({"Rows": None}, 422, "Rows is missing"),  # a report, or DICOMDIR
        ({"NumberOfFrames": "-9"}, 422, "-9 frame"),
        ({}, 200, ""),
    ],
)
def test_upload_with_invalid_size_is_refused(made: dict, status: int, reason: str) -> None:
    dataset = make_dicom([GRAY, GRAY], 1.0, 1.0)
    del dataset.SequenceOfUltrasoundRegions
    for key, value in made.items():
        setattr(dataset, key, value)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    found, detail = upload(stream.getvalue())
    assert found == status
    assert reason in detail


@pytest.mark.parametrize("kind", OTHERS)
def test_unsupported_upload_is_named_by_its_format(kind: str) -> None:
    data, reason = OTHERS[kind]
    status, detail = upload(data)
    assert status in (415, 422)
    assert re.search(reason, detail)


def test_upload_of_one_sagittal_slice(tmp_path: Path) -> None:
    """The shape (1, W, H) could be read as 389 frames."""
    affine = np.diag([1.0, -0.5, -0.5, 1.0])
    tall = np.tile(GRAY, (8, 1)).T[None]
    nib.save(nib.Nifti1Image(tall, affine), tmp_path / "a.nii")
    assert upload((tmp_path / "a.nii").read_bytes()) == (200, "")
    assert (read_images(tmp_path / "a.nii").frames == tall[0].T).all()


def upload(data: bytes) -> tuple[int, str]:
    """Return status and detail of the response to an uploaded file, 200 if it is accepted."""
    taken: list[int] = []
    try:
        read_uploads(
            [(io.BytesIO(data), "a")], Limits(upload_bytes=1 << 20, upload_s=1.0), taken.append
        )
    except HTTPException as error:
        return error.status_code, error.detail
    finally:
        assert min(taken, default=0) >= 0
    return 200, ""


# --- names and folders --------------------------------------------------------------------


def test_names_in_composed_and_decomposed_letters_are_the_same(tmp_path: Path) -> None:
    """macOS decomposes letters, so a patient with two notations would be in two splits."""
    composed, decomposed = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    folder = write_patient(tmp_path, composed)
    for path in folder.glob("*_4CH_*"):
        path.rename(folder / unicodedata.normalize("NFD", path.name))
    folder.rename(folder.with_name(decomposed))
    survey = camus.survey(tmp_path, use_lists=False)
    assert {case.patient for case in survey.cases} == {composed}
    assert len(survey.cases) == 4
    assert not survey.notes

    strips = tmp_path / "strips"
    strips.mkdir()
    Image.fromarray(GRAY).save(strips / f"{decomposed}.png")
    (strips / "recordings.csv").write_text(f"recording,animal\n{composed},m1\n", encoding="utf-8")
    (strips / f"{decomposed}_traces.csv").touch()
    (one,) = find_recordings([strips], [])
    assert one.folder.row_of(one.name)["animal"] == "m1"
    assert one.folder.annotations.keys() == {(one.name, "traces")}


def test_links_are_followed_and_dangling_links_are_reported(tmp_path: Path) -> None:
    there, archive = tmp_path / "in", tmp_path / "archive"
    archive.mkdir()
    there.mkdir()
    write_nifti(archive / "a.nii.gz", GRAY)
    os.symlink(archive, there / "patient")
    os.symlink(there, there / "loop")
    os.symlink(tmp_path / "gone.nii.gz", there / "b.nii.gz")
    (there / "c.nrrd").touch()
    (there / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    notes: list[tuple[str, str]] = []
    jobs, problems = find_jobs([str(there)], tmp_path / "out", notes)
    assert [job.file for job in jobs] == [there / "b.nii.gz", there / "patient" / "a.nii.gz"]
    assert not problems
    with pytest.raises(InputError, match=r"b\.nii\.gz: is missing"):
        read_images(jobs[0].file)
    assert [note for _, note in notes] == ["contains files that are not images: 1 .nrrd"]


def test_too_long_name_is_reported(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    with pytest.raises(InputError, match=r"cannot be written .*shorter"), catch_write_errors(path):
        path.touch()


def test_mask_in_unsupported_format_is_noted(tmp_path: Path) -> None:
    """A segmentation of 3D Slicer is beside the image."""
    folder = write_patient(tmp_path, "p1")
    mask = folder / "p1_4CH_ED_gt.nii.gz"
    mask.rename(folder / "p1_4CH_ED_gt.seg.nrrd")
    (folder / "p1_4CH_ED.raw").touch()  # of a .mhd file
    (note,) = camus.survey(tmp_path, use_lists=False).notes
    assert "p1_4CH_ED_gt.seg.nrrd" in note
    assert "p1_4CH_ED.raw" not in note


def test_swapped_phases_are_noted(tmp_path: Path) -> None:
    folder = write_patient(tmp_path, "p1")
    small = echo()[1]
    small[small == 1] = np.arange((small == 1).sum()) % 2 + 1
    write_nifti(folder / "p1_2CH_ED_gt.nii.gz", small)
    notes: list[str] = []
    check_cases("camus", camus.survey(tmp_path, use_lists=False).cases, 1, notes)
    (note,) = (note for note in notes if "smaller at ED" in note)
    assert note.startswith("p1: ")
    assert "2CH" in note


@pytest.mark.parametrize("names", [("IMG", "Mask"), ("images", "masks")])
def test_folders_of_other_names_are_listed(
    tmp_path: Path, params: Params, names: tuple[str, str]
) -> None:
    write_windows(tmp_path)
    for old, new in zip(("img", "mask"), names, strict=True):
        (tmp_path / old).rename(tmp_path / new)
    config = params.datasets.mmode.model_copy(update={"source": tmp_path})
    with pytest.raises(InputError, match=f"found: {names[0]}, {names[1]}"):
        mmode.survey(config)


def test_mask_that_reaches_both_edges_is_noted(tmp_path: Path, params: Params) -> None:
    write_windows(tmp_path)
    path = tmp_path / "mask" / "a0_w0.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    config = params.datasets.mmode.model_copy(update={"source": tmp_path, "mm_per_row": 0.2})
    first, second, *_ = (case.read() for case in mmode.survey(config).cases)
    assert any("inverted" in note for note in first.notes)
    assert second.notes == ()


def test_scale_with_unusual_lv_size_is_noted(tmp_path: Path, params: Params) -> None:
    """An LV of 12 mm is possible, but unusual for a mouse."""
    write_windows(tmp_path)
    config = params.datasets.mmode.model_copy(update={"source": tmp_path})
    for mm_per_row, noted in ((12 / 14, True), (3 / 14, False)):
        case = mmode.survey(config.model_copy(update={"mm_per_row": mm_per_row})).cases[0]
        assert any("Check the scale" in note for note in case.read().notes) == noted


def test_mask_beside_traces_is_noted_as_not_used(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    Image.fromarray(GRAY).save(tmp_path / "a_mask.png")
    (tmp_path / "a_traces.csv").write_text("col,upper_row,lower_row\n0,4,18\n39,4,18\n")
    (recording,) = find_recordings([tmp_path], [])
    notes: list[str] = []
    read_recording(recording, Defaults(MOUSE, (0.2, 0.001)), notes)
    assert any("a_mask.png: not used" in note for note in notes)


def test_masks_of_other_names_are_one_problem(tmp_path: Path, params: Params) -> None:
    write_windows(tmp_path)
    for path in list((tmp_path / "mask").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    config = params.datasets.mmode.model_copy(update={"source": tmp_path})
    with pytest.raises(InputError, match=r"img contains a0_w0.*mask contains a0_w0_mask"):
        mmode.survey(config)
