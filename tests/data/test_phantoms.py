"""Phantoms: layout of the real releases, agreement of masks and true values, reproducible bytes."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, signal

from heartseg import phantom
from heartseg.config.data import CamusPhantoms, MmodePhantoms, Phantoms
from heartseg.data.phantoms import camus, mmode, write
from heartseg.data.phantoms import picture as picture_module
from heartseg.data.phantoms.ultrasound import envelope, scatterers, smooth_field
from heartseg.data.phantoms.ventricle import STATIONS, Ventricle, volume_ml
from heartseg.errors import InputError

pytestmark = pytest.mark.slow

CAMUS = CamusPhantoms(patients=6, half_sequences=1, seed=3)
MMODE = MmodePhantoms(animals=4, windows_per_animal=2, window=192, seed=3)


def phantoms_of(mmode: MmodePhantoms) -> Phantoms:
    return Phantoms.model_validate({"camus": CAMUS, "mmode": mmode, "mmode-quality": mmode})


PATIENTS = [f"patient{n:04d}" for n in range(1, 7)]
CFG_KEYS = ["ED", "ES", "NbFrame", "Sex", "Age", "ImageQuality", "EF", "FrameRate"]


@pytest.fixture(scope="module")
def camus_root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("camus")
    camus.write_camus(folder, CAMUS, workers=1)
    return folder


@pytest.fixture(scope="module")
def mmode_root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mmode")
    mmode.write_mmode(folder, MMODE, workers=1)
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def nifti(root: Path, patient: str, suffix: str) -> nib.Nifti1Image:
    return nib.load(root / "database_nifti" / patient / f"{patient}_{suffix}.nii.gz")


def pixels(root: Path, patient: str, suffix: str) -> np.ndarray:
    return np.asarray(nifti(root, patient, suffix).dataobj)


def info(root: Path, patient: str, view: str) -> dict[str, str]:
    text = (root / "database_nifti" / patient / f"Info_{view}.cfg").read_text()
    return dict(line.split(": ") for line in text.splitlines())


def all_bytes(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def disks(root: Path, patient: str, view: str, phase: str, count: int = 20):
    """Return long axis and disk diameters of the mask, from the line where LV and LA touch."""
    image = nifti(root, patient, f"{view}_{phase}_gt")
    labels, spacing = np.asarray(image.dataobj), np.array(image.header.get_zooms()[:2])
    base = np.argwhere((labels == 1) & ndimage.binary_dilation(labels == 3)) * spacing
    middle = base.mean(axis=0)
    across = np.linalg.svd(base - middle, full_matrices=False)[2][0]
    axis = np.array([-across[1], across[0]])
    along = (np.argwhere(labels == 1) * spacing - middle) @ axis
    along *= np.sign(along.mean())
    area, _ = np.histogram(along, bins=count, range=(0, along.max()))
    return along.max(), area * spacing.prod() / (along.max() / count)


def simpson_ml(root: Path, patient: str, phase: str) -> float:
    (length2, d2), (length4, d4) = (disks(root, patient, v, phase) for v in ("2CH", "4CH"))
    return float(np.pi / 4 * (d2 * d4).mean() * max(length2, length4) / 1000)


def best_threshold_dice(image: np.ndarray, mask: np.ndarray, sigma: float) -> float:
    """Return the Dice of the best threshold of the smoothed, non-black image."""
    smooth, seen = ndimage.gaussian_filter(image.astype(float), sigma), image > 0
    best = 0.0
    for t in range(4, 252, 4):
        for guess in (seen & (smooth < t), seen & (smooth >= t)):
            best = max(best, 2 * (guess & mask).sum() / (guess.sum() + mask.sum()))
    return best


# --- CAMUS ------------------------------------------------------------------------------------


def test_camus_has_the_release_layout(camus_root):
    for patient in PATIENTS:
        names = {p.name for p in (camus_root / "database_nifti" / patient).iterdir()}
        expected = {"Info_2CH.cfg", "Info_4CH.cfg"}
        phases = ("ED", "ES", "half_sequence") if patient == PATIENTS[0] else ("ED", "ES")
        expected |= {
            f"{patient}_{view}_{phase}{gt}.nii.gz"
            for view in ("2CH", "4CH")
            for phase in phases
            for gt in ("", "_gt")
        }
        assert names == expected
        cfg = info(camus_root, patient, "2CH")
        assert list(cfg) == CFG_KEYS
        assert cfg == info(camus_root, patient, "4CH")
        assert cfg["ED"] == "1"
        assert cfg["ES"] == cfg["NbFrame"]
        assert 10 <= int(cfg["NbFrame"]) <= 20
        assert cfg["ImageQuality"] in ("Good", "Medium", "Poor")


def test_camus_nifti_is_lateral_by_depth_with_the_apex_above(camus_root):
    for patient in PATIENTS:
        image, mask = (nifti(camus_root, patient, f"4CH_ED{gt}") for gt in ("", "_gt"))
        data, labels = np.asarray(image.dataobj), np.asarray(mask.dataobj)
        assert data.dtype == labels.dtype == np.uint8
        assert data.shape == labels.shape
        assert set(np.unique(labels)) == {0, 1, 2, 3}
        sx, sy = image.header.get_zooms()
        np.testing.assert_allclose(image.affine, np.diag([-sx, -sy, 1, 1]))
        np.testing.assert_allclose(mask.affine, image.affine)
        assert image.header.get_xyzt_units()[0] == "mm"
        depth = {label: np.argwhere(labels == label)[:, 1].mean() for label in (1, 3)}
        assert depth[1] < depth[3]  # the atrium lies deeper than the ventricle
        assert (data[:20, :40] == 0).all()  # left and right of the sector's apex: black
        assert (data[-20:, :40] == 0).all()
        middle = data.shape[0] // 2
        assert data[middle - 10 : middle + 10, 20:40].mean() > 10


def test_camus_patients_differ_in_size_and_spacing(camus_root):
    images = [nifti(camus_root, patient, "2CH_ED") for patient in PATIENTS]
    assert len({image.shape for image in images}) == len(images)
    spacings = {camus.make_patient(1, n).sector.spacing for n in range(1, 31)}
    assert (0.308, 0.308) in spacings
    assert any(sx != sy for sx, sy in spacings)


def test_camus_headers_and_keys_equal_those_of_the_release(camus_root):
    real = os.environ.get("HEARTSEG_CAMUS_ROOT")
    if not real:
        pytest.skip("HEARTSEG_CAMUS_ROOT is not set")
    for gt in ("", "_gt"):
        ours = nifti(camus_root, "patient0001", f"4CH_ED{gt}").header
        theirs = nifti(Path(real), "patient0001", f"4CH_ED{gt}").header
        for field in ("datatype", "xyzt_units", "qform_code", "sform_code"):
            assert ours[field] == theirs[field], field
        assert ours["dim"][0] == theirs["dim"][0]
    assert list(info(Path(real), "patient0001", "4CH")) == CFG_KEYS


def test_simpson_of_the_masks_gives_the_true_volumes_and_cfg_the_true_ef(camus_root):
    rows = table(camus_root / "truth.csv")
    assert [row["patient"] for row in rows] == PATIENTS
    for row in rows:
        edv, esv = (simpson_ml(camus_root, row["patient"], phase) for phase in ("ED", "ES"))
        assert edv == pytest.approx(float(row["edv_ml"]), rel=0.03)
        assert esv == pytest.approx(float(row["esv_ml"]), rel=0.03)
        ef = 100 * (1 - float(row["esv_ml"]) / float(row["edv_ml"]))
        assert float(row["ef_percent"]) == pytest.approx(ef)
        cfg_ef = float(info(camus_root, row["patient"], "2CH")["EF"])
        assert cfg_ef == pytest.approx(ef, abs=0.0501)
        assert 100 * (1 - esv / edv) == pytest.approx(ef, abs=1.0)


def test_both_views_show_the_same_long_axis(camus_root):
    for patient in PATIENTS:
        for phase in ("ED", "ES"):
            two, four = (disks(camus_root, patient, view, phase)[0] for view in ("2CH", "4CH"))
            assert two == pytest.approx(four, abs=1.0)  # mm


def test_ventricle_shrinks_and_wall_thickens(camus_root):
    for patient in PATIENTS:
        for view in ("2CH", "4CH"):
            ed, es = (pixels(camus_root, patient, f"{view}_{p}_gt") for p in ("ED", "ES"))
            assert (es == 1).sum() < (ed == 1).sum()
        ventricles = camus.make_patient(CAMUS.seed, PATIENTS.index(patient) + 1).heart["4CH"]
        assert ventricles[1].wall > ventricles[0].wall


def test_ef_spans_the_clinical_range():
    ef = [camus.make_patient(1, number).ef for number in range(1, 61)]
    assert min(ef) < 27
    assert max(ef) > 68
    assert all(19.9 <= value <= 75.1 for value in ef)


def test_no_threshold_segments_the_ventricle(camus_root):
    scores = []
    for patient in PATIENTS:
        image, labels = (pixels(camus_root, patient, f"4CH_ED{gt}") for gt in ("", "_gt"))
        scores.append(best_threshold_dice(image, labels == 1, sigma=3))
    assert max(scores) < 0.75
    assert np.mean(scores) < 0.6


def test_split_lists_are_disjoint_and_complete(camus_root):
    lists = {
        name: (camus_root / "database_split" / f"subgroup_{name}.txt").read_text().split()
        for name in ("training", "validation", "testing")
    }
    assert sorted(name for members in lists.values() for name in members) == PATIENTS
    assert {name: len(members) for name, members in lists.items()} == {
        "training": 4,
        "validation": 1,
        "testing": 1,
    }


def test_half_sequence_runs_from_ed_to_es_with_moving_speckle(camus_root):
    patient = PATIENTS[0]
    frames = int(info(camus_root, patient, "4CH")["NbFrame"])
    sequence, masks = (pixels(camus_root, patient, f"4CH_half_sequence{gt}") for gt in ("", "_gt"))
    ed, es = (pixels(camus_root, patient, f"4CH_{phase}") for phase in ("ED", "ES"))
    assert sequence.shape == masks.shape == (*ed.shape, frames)
    np.testing.assert_array_equal(sequence[..., 0], ed)
    np.testing.assert_array_equal(sequence[..., -1], es)
    np.testing.assert_array_equal(masks[..., -1], pixels(camus_root, patient, "4CH_ES_gt"))
    areas = (masks == 1).sum(axis=(0, 1))
    assert (np.diff(areas) < 0).all()
    wall = (masks[..., 0] == 2) & (masks[..., 1] == 2) & (masks[..., -1] == 2) & (ed > 0)
    near, far = (np.corrcoef(sequence[..., 0][wall], sequence[..., k][wall])[0, 1] for k in (1, -1))
    assert near > 0.8  # the same speckle, a little further
    assert near > far


# --- M-mode -----------------------------------------------------------------------------------


def read_window(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    image, mask = (np.array(Image.open(root / kind / f"{name}.png")) for kind in ("img", "mask"))
    return image, mask


def test_mmode_has_img_mask_and_sidecar(mmode_root):
    rows = table(mmode_root / "windows.csv")
    names = [f"animal{a:02d}_w{w}" for a in range(1, 5) for w in (1, 2)]
    assert [row["name"] for row in rows] == names
    assert list(rows[0]) == [
        "name", "mm_per_row", "s_per_column", "quality",
        "lvidd_mm", "lvids_mm", "heart_rate_bpm", "animal",
    ]  # fmt: skip
    for kind in ("img", "mask"):
        assert sorted(p.stem for p in (mmode_root / kind).iterdir()) == names
    for row in rows:
        image, mask = read_window(mmode_root, row["name"])
        assert image.shape == mask.shape == (192, 192)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        assert 7.9 <= 192 * float(row["mm_per_row"]) <= 12
        assert row["name"].startswith(f"{row['animal']}_")


def test_mmode_masks_agree_with_diameters_and_heart_rate(mmode_root):
    for row in table(mmode_root / "windows.csv"):
        mask = read_window(mmode_root, row["name"])[1] > 0
        mm, seconds = float(row["mm_per_row"]), float(row["s_per_column"])
        diameter = mask.sum(axis=0) * mm
        lvidd, lvids = float(row["lvidd_mm"]), float(row["lvids_mm"])
        assert 350 * 0.9 < float(row["heart_rate_bpm"]) < 650 * 1.1
        assert 2.8 < lvidd < 4.7
        assert lvids < lvidd
        assert diameter.max() == pytest.approx(lvidd, abs=0.04 * lvidd + mm)
        assert diameter.min() == pytest.approx(lvids, abs=0.06 * lvids + mm)
        smooth = ndimage.gaussian_filter1d(diameter, 4)
        troughs, _ = signal.find_peaks(-smooth, prominence=0.4 * (lvidd - lvids))
        assert len(troughs) >= 2
        rate = 60 / (np.diff(troughs).mean() * seconds)
        assert rate == pytest.approx(float(row["heart_rate_bpm"]), rel=0.1)
        runs = np.diff(mask.astype(int), axis=0, prepend=0, append=0)
        assert (np.abs(runs).sum(axis=0) == 2).all()  # one piece per column


def test_mmode_windows_are_cut_from_the_strips(mmode_root):
    rows = {row["recording"]: row for row in table(mmode_root / "strips/recordings.csv")}
    assert list(rows) == [f"animal{a:02d}" for a in range(1, 5)]
    for window in table(mmode_root / "windows.csv"):
        whole = rows[window["animal"]]
        for key in ("mm_per_row", "s_per_column"):
            assert whole[key] == window[key]
        strip = np.array(Image.open(mmode_root / f"strips/{whole['recording']}.png"))
        image, _ = read_window(mmode_root, window["name"])
        starts = range(strip.shape[1] - image.shape[1] + 1)
        assert any(np.array_equal(strip[:, s : s + image.shape[1]], image) for s in starts)


def test_contraction_is_quicker_than_relaxation():
    motion = mmode.make_motion(np.random.default_rng(0), 2000, 100.0, 10.0)
    next_diastole = motion.diastoles[1:]
    down = motion.systoles[:-1] - motion.diastoles[:-1]
    assert (down < next_diastole - motion.systoles[:-1]).all()


def test_no_threshold_segments_a_window(mmode_root):
    scores = []
    for row in table(mmode_root / "windows.csv"):
        image, mask = read_window(mmode_root, row["name"])
        scores.append(best_threshold_dice(image, mask > 0, sigma=2))
    assert np.mean(scores) < 0.85


# --- both -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_with_any_number_of_processes(
    camus_root, mmode_root, tmp_path
):
    again = {name: tmp_path / name for name in ("camus", "mmode")}
    for folder in again.values():
        folder.mkdir()
    fewer = CAMUS.model_copy(update={"patients": 3, "half_sequences": 0})
    camus.write_camus(again["camus"], fewer, workers=2)
    mmode.write_mmode(again["mmode"], MMODE, workers=1)
    assert all_bytes(again["mmode"]) == all_bytes(mmode_root)
    before = all_bytes(camus_root / "database_nifti")
    after = all_bytes(again["camus"] / "database_nifti")
    assert len(after) == 3 * 10
    assert all(before[name] == data for name, data in after.items())
    truth = (camus_root / "truth.csv").read_text()
    assert truth.startswith((again["camus"] / "truth.csv").read_text())
    packed = (camus_root / "database_nifti/patient0001/patient0001_2CH_ED.nii.gz").read_bytes()
    assert packed[3] == 0  # no file name in the gzip header
    assert packed[4:8] == b"\0\0\0\0"  # and no time


def test_other_seed_gives_other_phantoms():
    assert camus.make_patient(3, 1).edv != camus.make_patient(4, 1).edv
    one, other = (mmode.make_animal(MMODE.model_copy(update={"seed": s}), 1) for s in (3, 4))
    assert not np.array_equal(one[0][1], other[0][1])


def test_volume_of_a_half_ellipsoid():
    """Semi-axes 24 and 20 mm across and 80 mm along: 2/3 pi a b c."""
    profile = np.sqrt(1 - (1 - STATIONS) ** 2)
    two, four = (
        Ventricle(80, half * profile, half * profile, 9, 40, 40, 0) for half in (24.0, 20.0)
    )
    assert volume_ml(two, four) == pytest.approx(2 / 3 * np.pi * 24 * 20 * 80 / 1000, rel=1e-3)


def test_tissue_of_the_border_stays_at_the_border():
    ed, es = camus.make_patient(3, 1).heart["4CH"]
    now = np.array([0.2, 0.5, 0.9]) * es.length
    inner, outer = es.half_widths(now, np.ones(3))
    for border, index in ((inner, 0), (outer, 1)):
        z0, w0 = es.material(ed, now, border)
        np.testing.assert_allclose(z0 / ed.length, now / es.length)
        np.testing.assert_allclose(w0, ed.half_widths(z0, w0)[index], rtol=1e-4)


def test_speckle_is_rayleigh_distributed():
    """Mean over standard deviation of a Rayleigh envelope: sqrt(pi / (4 - pi)) = 1.913."""
    speckle = envelope(scatterers(np.random.default_rng(0), (600, 600)), (1.5, 1.5))
    assert speckle.mean() / speckle.std() == pytest.approx(1.913, rel=0.03)
    assert (speckle**2).mean() == pytest.approx(1, rel=0.05)
    field = smooth_field(np.random.default_rng(0), (2000, 500), (5, 5))
    assert field.std() == pytest.approx(1, rel=0.03)


def test_command_replaces_folder_atomically(tmp_path, monkeypatch):
    phantoms = phantoms_of(MMODE.model_copy(update={"animals": 1}))
    folder = tmp_path / "phantoms" / "mmode"
    folder.mkdir(parents=True)
    (folder / "old.txt").touch()
    monkeypatch.setattr(write.os, "cpu_count", lambda: 1)

    def fail(temporary: Path, *_: object) -> None:
        (temporary / "half.txt").touch()
        raise OSError("disk full")

    with monkeypatch.context() as context:
        context.setattr(write, "write_mmode", fail)
        with pytest.raises(InputError, match=r"mmode: cannot be written \(disk full\)"):
            write.write_phantoms("mmode", phantoms, folder)
    assert [p.name for p in folder.parent.rglob("*")] == ["mmode", "old.txt"]

    write.write_phantoms("mmode", phantoms, folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        "PHANTOM", "img", "mask", "strips", "windows.csv",
    ]  # fmt: skip
    assert [p.name for p in folder.parent.iterdir()] == ["mmode"]

    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="is not a folder"):
        write.write_phantoms("mmode", phantoms, file)
    with pytest.raises(InputError, match="cannot be written"):
        write.write_phantoms("mmode", phantoms, file / "mmode")


def test_command_needs_something_to_do():
    with pytest.raises(InputError, match="--picture"):
        phantom.main([])


def test_picture_shows_both_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_module, "ROWS", 1)
    phantoms = phantoms_of(MMODE)
    picture_module.draw_picture(phantoms, tmp_path / "docs" / "picture.png")
    with pytest.raises(InputError, match="cannot be written"):
        picture_module.draw_picture(phantoms, tmp_path / "docs/picture.png/below.png")
    picture = np.array(Image.open(tmp_path / "docs" / "picture.png").convert("RGB")).astype(int)
    right = picture[:, int(0.75 * picture.shape[1]) :]
    for half in (picture[:, : picture.shape[1] // 2], right):
        red_over_blue = half[..., 0] - half[..., 2]
        assert (red_over_blue > 80).sum() > 50  # contours
        assert (half.min(axis=-1) > 60).mean() > 0.05  # echoes
