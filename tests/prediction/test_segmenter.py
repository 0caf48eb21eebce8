"""The results of files: label maps on their grids, tables, skipped and bad files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from heartseg.data.phantoms.recording import make_dicom
from heartseg.evaluation.clinical import clinical_indices
from heartseg.prediction import segmenter
from heartseg.prediction.files import find_jobs
from heartseg.prediction.segmenter import BATCH_FRAMES, Outcome, Segmenter

WIDTH, DEPTH = 40, 24
# Rotated about two axes, another spacing on each, and an origin: nothing cancels out.
OBLIQUE = np.array(
    [
        [0.25881905, -0.38637033, 0.0, 11.5],
        [0.22414387, 0.06004, -0.68, -7.25],
        [0.06699, 0.0179, 0.91, 3.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
CAMUS = {"dataset": "camus", "recipe": {"model": {"in_channels": 1}}}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def bright(images: np.ndarray) -> np.ndarray:
    """The model of most tests: label 1 where a pixel is brighter than 100."""
    assert images.dtype == np.uint8
    assert images.shape[1] == 1
    return (images[:, 0] > 100).astype(np.uint8)


def segment(*inputs: Path, predict=bright, metadata=CAMUS, **options) -> Outcome:
    jobs, problems = find_jobs([str(path) for path in inputs], Path("out"))
    assert problems == []
    return Segmenter(predict, metadata, Path("out"), **options)(jobs)


def blob(height: int = DEPTH, width: int = WIDTH) -> np.ndarray:
    """uint8 (H, W): a bright block in one quarter, so that no axis can be swapped or flipped."""
    pixels = np.full((height, width), 20, np.uint8)
    pixels[height // 8 : height // 2, width // 2 : width - width // 8] = 220
    return pixels


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("third_axis", [(), (1,), (1, 1)])
def test_a_label_map_lies_on_the_grid_of_its_image(tmp_path, ending, third_axis):
    pixels = blob()
    image = nib.Nifti1Image(pixels.T.reshape(WIDTH, DEPTH, *third_axis), OBLIQUE)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(OBLIQUE, code=2)
    image.set_qform(OBLIQUE, code=1)
    image.header["cal_max"] = 255
    nib.save(image, tmp_path / f"x{ending}")
    stored = nib.load(tmp_path / f"x{ending}")

    assert segment(tmp_path / f"x{ending}").done == 1

    assert sorted(path.name for path in Path("out").iterdir()) == ["x_overlay.png", "x_seg.nii.gz"]
    labels = nib.load("out/x_seg.nii.gz")
    assert labels.shape == stored.shape
    assert labels.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(labels.affine, stored.affine)
    np.testing.assert_array_equal(labels.get_qform(), stored.get_qform())
    assert (labels.header["sform_code"], labels.header["qform_code"]) == (2, 1)
    assert labels.header.get_zooms() == stored.header.get_zooms()
    assert labels.header.get_xyzt_units() == ("mm", "sec")
    values = np.asanyarray(labels.dataobj)
    assert values.dtype == np.uint8  # no slope and intercept on the label values
    assert ((pixels > 100) == values.reshape(WIDTH, DEPTH).T).all()


def test_frames_of_one_size_share_batches_and_come_back_to_their_files(tmp_path):
    """A sequence longer than a batch, single frames of its size, and one of another size."""
    frames = [np.roll(blob(), -2 * step, axis=1) for step in range(BATCH_FRAMES + 3)]
    data = np.stack([frame.T for frame in frames], axis=-1).astype(np.int16)
    image = nib.Nifti1Image(data, OBLIQUE)
    image.header.set_zooms((0.3, 0.7, 0.02))
    nib.save(image, tmp_path / "sequence.nii.gz")
    Image.fromarray(frames[4]).save(tmp_path / "a.png")
    Image.fromarray(frames[1]).save(tmp_path / "z.png")
    Image.fromarray(blob(30, 50)).save(tmp_path / "other.png")
    sizes = []

    def predict(images: np.ndarray) -> np.ndarray:
        sizes.append(images.shape)
        return bright(images)

    mmode = {**CAMUS, "dataset": "mmode"}  # nothing is measured
    inputs = [tmp_path / name for name in ("sequence.nii.gz", "a.png", "z.png", "other.png")]
    assert segment(*inputs, predict=predict, metadata=mmode).done == 4

    assert sorted(sizes) == [
        (1, 1, 30, 50),
        (len(frames) + 2 - BATCH_FRAMES, 1, DEPTH, WIDTH),
        (BATCH_FRAMES, 1, DEPTH, WIDTH),
    ]
    labels = nib.load("out/sequence_seg.nii.gz")
    assert labels.header.get_zooms() == nib.load(tmp_path / "sequence.nii.gz").header.get_zooms()
    assert (np.asanyarray(labels.dataobj) == (data > 100)).all()
    for name, pixels in (("a", frames[4]), ("z", frames[1]), ("other", blob(30, 50))):
        assert (np.array(Image.open(f"out/{name}_seg.png")) == (pixels > 100)).all()
    with Image.open("out/sequence_overlay.gif") as animation:
        assert animation.n_frames == len(frames)


def test_large_images_are_segmented_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "BATCH_PIXELS", DEPTH * WIDTH)
    for name in "ab":
        Image.fromarray(blob()).save(tmp_path / f"{name}.png")
    sizes = []

    def predict(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return bright(images)

    segment(tmp_path, predict=predict)
    assert sizes == [1, 1]


# --- skipping -----------------------------------------------------------------------------


def test_files_segmented_earlier_are_skipped_but_measured(tmp_path):
    inputs = tmp_path / "in"
    inputs.mkdir()
    for name in "ab":
        nib.save(nib.Nifti1Image(blob().T, np.diag([0.5, 0.5, 1, 1])), inputs / f"{name}.nii.gz")
    first = segment(inputs)
    assert (first.done, first.skipped) == (2, 0)
    (tmp_path / "out/b_seg.nii.gz").unlink()
    asked = []

    def predict(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        return bright(images)

    again = segment(inputs, predict=predict)

    assert (again.done, again.skipped, asked) == (1, 1, [1])
    pd.testing.assert_frame_equal(pd.DataFrame(again.images), pd.DataFrame(first.images))
    assert segment(inputs, overwrite=True).done == 2
    made = (tmp_path / "out/a_seg.nii.gz").stat().st_mtime
    assert segment(inputs, made_before=made + 1).done == 2  # older than the last --overwrite
    assert segment(inputs, made_before=made - 1).done == 0


def test_clips_segmented_earlier_are_skipped(tmp_path):
    """The label maps cover the whole picture, the frames a part of it."""
    frames = list(np.random.default_rng(0).integers(0, 256, (2, 30, 100), dtype=np.uint8))
    made = make_dicom(frames, 1.0, 1.0)
    region = made.SequenceOfUltrasoundRegions[2]
    region.RegionSpatialFormat = 1
    made.SequenceOfUltrasoundRegions = [region]
    made.save_as(tmp_path / "clip.dcm", enforce_file_format=True)
    mmode = {**CAMUS, "dataset": "mmode"}

    first, again = (segment(tmp_path / "clip.dcm", metadata=mmode) for _ in range(2))

    assert (first.done, again.skipped, again.problems) == (1, 1, [])


def test_a_label_map_of_another_grid_is_refused(tmp_path):
    Image.fromarray(blob()).save(tmp_path / "a.png")
    segment(tmp_path / "a.png")
    Image.fromarray(blob(30, 50)).save(tmp_path / "a.png")

    (problem,) = segment(tmp_path / "a.png").problems

    assert "a_seg.png: has shape (1, 24, 40)" in problem
    assert "--overwrite" in problem
    Path("out/a_seg.png").write_bytes(b"half")
    (problem,) = segment(tmp_path / "a.png").problems
    assert "a_seg.png: " in problem
    assert "--overwrite" in problem


def test_an_interrupted_write_leaves_nothing_that_looks_done(tmp_path, monkeypatch):
    nib.save(nib.Nifti1Image(blob().T, OBLIQUE), tmp_path / "a.nii.gz")

    def broken(image, path) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nib, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        segment(tmp_path / "a.nii.gz")

    assert [path.name for path in Path("out").iterdir()] == ["a_overlay.png"]


def test_a_file_that_cannot_be_written_does_not_affect_the_others(tmp_path):
    for name in "ab":
        Image.fromarray(blob()).save(tmp_path / f"{name}.png")
    (tmp_path / "out" / "a_overlay.png").mkdir(parents=True)

    outcome = segment(tmp_path)

    assert outcome.done == 1
    assert Path("out/b_seg.png").exists()
    assert ["a_seg.png: cannot be written" in problem for problem in outcome.problems] == [True]


# --- tables -------------------------------------------------------------------------------


def chambers(height: int) -> np.ndarray:
    """Label map (H, W): an LV of some height in its wall, above an atrium."""
    labels = np.zeros((64, 56), np.uint8)
    labels[40 - height : 42, 10:40] = 2
    labels[44 - height : 42, 14:36] = 1
    labels[42:54, 16:34] = 3
    return labels


def write_frames(
    folder: Path, patient: str, views: tuple[str, ...], grays=(0, 60, 120, 180)
) -> dict:
    """Images with a gray value for each label; the label maps with their spacing."""
    folder.mkdir(parents=True)
    masks = {}
    for number, view in enumerate(views):
        for phase, height in (("ED", 36 - number), ("ES", 26 - number)):
            masks[view, phase] = chambers(height), (1.5, 1.0)
            pixels = np.array(grays, np.uint8)[chambers(height)]
            image = nib.Nifti1Image(pixels.T, np.diag([-1.0, -1.5, 1.0, 1.0]))
            nib.save(image, folder / f"{patient}_{view}_{phase}.nii.gz")
    return masks


def test_clinical_indices_of_patients_with_all_views(tmp_path):
    masks = write_frames(tmp_path / "in/site/patient0001", "patient0001", ("2CH", "4CH"))
    write_frames(tmp_path / "in/site/patient0039", "patient0039", ("2CH",))

    outcome = segment(tmp_path / "in", predict=lambda images: images[:, 0] // 60)

    (row,) = outcome.patients
    expected = clinical_indices(masks)
    assert (row["patient"], row["folder"]) == ("patient0001", "site/patient0001")
    assert row["edv_ml"] == expected["edv_ml"]
    assert row["ef_percent"] == expected["ef_percent"]
    assert 10 < row["ef_percent"] < 60
    assert row["esv_ml_area_length_4CH"] == expected["esv_ml_area_length_4CH"]
    assert row["la_area_mm2_2CH_ES"] == 12 * 18 * 1.5
    assert len(row) == len(expected) + 2
    assert len(outcome.images) == 6
    ed = next(r for r in outcome.images if r["image"] == "site/patient0001/patient0001_4CH_ED")
    assert (ed["patient"], ed["view"], ed["phase"], ed["frame"]) == ("patient0001", "4CH", "ED", 1)
    assert ed["lv_area_mm2"] == 22 * 33 * 1.5
    assert ed["lv_volume_area_length_ml"] == expected["edv_ml_area_length_4CH"]


def test_implausible_label_maps_are_flagged(tmp_path):
    write_frames(tmp_path / "in", "patient0001", ("2CH",))
    pixels = np.array((0, 60, 120, 180), np.uint8)[chambers(36)]
    pixels[2:6, 2:6] = 60  # a second LV
    nib.save(nib.Nifti1Image(pixels.T, np.diag([-1.0, -1.5, 1, 1])), tmp_path / "in/odd.nii.gz")

    rows = segment(tmp_path / "in", predict=lambda images: images[:, 0] // 60).images

    told = {row["image"]: (row["pieces"], row["plausible"]) for row in rows}
    assert told == {
        "odd": (True, False),
        "patient0001_2CH_ED": (False, True),
        "patient0001_2CH_ES": (False, True),
    }
    assert all("area" not in row for row in rows)  # it needs a cohort


@pytest.mark.parametrize("scale", [True, False])
def test_a_ventricle_that_is_cut_off_is_flagged_in_all_tables(tmp_path, scale):
    write_frames(tmp_path / "in", "patient0001", ("2CH", "4CH"))
    (whole,) = segment(tmp_path / "in", predict=lambda images: images[:, 0] // 60).patients
    for path in (tmp_path / "in").iterdir():
        image = nib.load(path)
        pixels = np.asarray(image.dataobj)
        if "_4CH_" in path.name:
            pixels = pixels[np.flatnonzero((pixels == 60).any(1))[0] + 3 :]
        nib.save(nib.Nifti1Image(pixels, image.affine if scale else np.eye(4)), path)

    outcome = segment(tmp_path / "in", overwrite=True, predict=lambda images: images[:, 0] // 60)

    (row,) = outcome.patients
    assert not whole["edge"]
    assert row["edge"]
    assert any(name == "patient0001" and "edge" in note for name, note in outcome.notes)
    assert {r["image"]: r["edge"] for r in outcome.images} == {
        f"patient0001_{view}_{phase}": view == "4CH"
        for view in ("2CH", "4CH")
        for phase in ("ED", "ES")
    }
    if scale:
        assert whole["plausible"]
        assert not row["plausible"]
        assert row["edv_ml"] < 0.95 * whole["edv_ml"]
    else:
        assert not any(name.endswith("_ml") for name in row)
        assert 0 < row["ef_percent"] < 100


STEM = "patient0001_2CH_half_sequence"
HEIGHTS = (14, 12, 10, 6)  # rows of the bright block in each frame


def shrinking(value: int) -> np.ndarray:
    """Frames (T, H, W): a block ten columns wide that gets shorter, of `value` on black."""
    frames = np.zeros((len(HEIGHTS), DEPTH, WIDTH), np.uint8)
    for frame, height in zip(frames, HEIGHTS, strict=True):
        frame[4 : 4 + height, 12:22] = value
    return frames


def save_sequence(path: Path, frames: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(frames.T, np.diag([-1.0, -2.0, 1, 1])), path)


@pytest.mark.slow
def test_curves_of_a_sequence_and_its_reference(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, value in ((STEM, 220), (f"{STEM}_gt", 1)):
        save_sequence(folder / f"{name}.nii.gz", shrinking(value))
    (folder / "Info_2CH.cfg").write_text("ED: 1\nES: 4\nNbFrame: 4\nFrameRate: 50\n")

    outcome = segment(folder)

    assert sorted(path.name for path in Path("out").iterdir()) == [
        *(f"{STEM}_curves.csv", f"{STEM}_curves.png", f"{STEM}_overlay.gif"),
        f"{STEM}_seg.nii.gz",
    ]
    curves = pd.read_csv(f"out/{STEM}_curves.csv", keep_default_na=False)
    assert list(curves["frame"]) == [1, 2, 3, 4]
    assert list(curves["time_s"]) == pytest.approx([0, 0.02, 0.04, 0.06])
    areas = [0.2 * height for height in HEIGHTS]  # ten columns, 2 mm² a pixel
    assert list(curves["lv_area_cm2_reference"]) == pytest.approx(areas)
    assert list(curves["lv_area_cm2"]) == pytest.approx(areas)
    assert list(curves["phase_reference"]) == ["ED", "", "", "ES"]
    assert list(curves["dice_LV"]) == [1, 1, 1, 1]
    (row,) = outcome.sequences
    assert row["sequence"] == STEM
    assert (row["ed_frame"], row["es_frame"]) == (1, 4)
    edv, esv = row["edv_ml_reference"], row["esv_ml_reference"]
    assert row["ef_percent_reference"] == pytest.approx(100 * (edv - esv) / edv)


@pytest.mark.slow
def test_a_reference_on_another_grid_is_reported_and_ignored(tmp_path):
    save_sequence(tmp_path / f"{STEM}.nii.gz", shrinking(220))
    save_sequence(tmp_path / f"{STEM}_gt.nii.gz", shrinking(1)[:, :-1])

    outcome = segment(tmp_path / f"{STEM}.nii.gz")

    assert f"{STEM}_gt.nii.gz: has shape (4, 23, 40)" in outcome.problems[0]
    assert outcome.done == 1
    assert "dice_LV" not in pd.read_csv(f"out/{STEM}_curves.csv")


@pytest.mark.slow
def test_a_model_of_sequences_segments_both_ends(tmp_path):
    """Its first channel is the frame to segment, and each channel is brighter than the previous."""

    def predict(stacks: np.ndarray) -> np.ndarray:
        assert stacks.shape == (2, 20, DEPTH, WIDTH)
        assert stacks.dtype == np.uint8
        assert (stacks[1] == stacks[0, ::-1]).all()
        return (stacks[:, 0] > 100).astype(np.uint8)

    metadata = {"dataset": "camus", "recipe": {"model": {"in_channels": 20}}}
    save_sequence(tmp_path / f"{STEM}.nii.gz", shrinking(220))
    Image.fromarray(blob()).save(tmp_path / "single.png")

    outcome = segment(tmp_path, predict=predict, metadata=metadata)

    assert "single.png: the model takes sequences" in outcome.problems[0]
    labels = nib.load(f"out/{STEM}_seg.nii.gz")
    assert labels.shape == (WIDTH, DEPTH, 2)
    values = np.asanyarray(labels.dataobj).transpose(2, 1, 0)
    assert (values == shrinking(1)[[0, -1]]).all()
    assert list(pd.read_csv(f"out/{STEM}_curves.csv")["frame"]) == [1, 4]
    assert segment(tmp_path / f"{STEM}.nii.gz", metadata=metadata).skipped == 1


def test_three_channels_are_one_gray_frame(tmp_path):
    Image.fromarray(blob()).save(tmp_path / "a.png")

    def predict(images: np.ndarray) -> np.ndarray:
        assert images.shape == (1, 3, DEPTH, WIDTH)
        assert (images == images[:, :1]).all()
        return bright(images[:, :1])

    metadata = {"dataset": "camus", "recipe": {"model": {"in_channels": 3}}}
    assert segment(tmp_path / "a.png", predict=predict, metadata=metadata).done == 1


# --- bad files ----------------------------------------------------------------------------


def test_bad_files_are_reported_and_the_others_segmented(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(blob()).save(folder / "good.png")
    Image.fromarray(blob(8, 8)).save(folder / "tiny.png")
    (folder / "broken.png").write_bytes(b"no picture")
    nib.save(nib.Nifti1Image(blob().T, OBLIQUE), folder / "cut.nii.gz")
    whole = (folder / "cut.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 3, 2)), OBLIQUE), folder / "volumes.nii")
    nib.save(nib.Nifti1Image(np.full((24, 24), np.nan), OBLIQUE), folder / "nan.nii")
    (folder / "empty.nii").touch()
    (folder / "broken.dcm").write_bytes(bytes(128) + b"DICM" + bytes(40))

    outcome = segment(folder)

    for name, reason in {
        "tiny.png": "8 x 8",
        "broken.png": "is not a NIfTI",
        "cut.nii.gz": "truncated",
        "volumes.nii": "(4, 4, 3, 2)",
        "nan.nii": "NaN",
        "empty.nii": "empty",
        "broken.dcm": "no image",
    }.items():
        assert any(f"/{name}: " in line and reason in line for line in outcome.problems), name
    assert len(outcome.problems) == 7
    assert [path.name for path in Path("out").rglob("*_seg*")] == ["good_seg.png"]
