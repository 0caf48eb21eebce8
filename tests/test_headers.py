"""Names, dates and other free text in the headers of DICOM and NIfTI files stay behind."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from heartseg import windows
from heartseg.data import images
from heartseg.data.phantoms.recording import (
    MM_PER_ROW,
    S_PER_COLUMN,
    make_dicom,
    make_recording,
    scroll,
)
from heartseg.data.species import SPECIES
from heartseg.data.strips.dicom import read_dicom
from heartseg.data.strips.folder import find_recordings
from heartseg.data.strips.recordings import Defaults, read_recording
from heartseg.errors import InputError
from heartseg.prediction import recordings
from tests.examples import ROOT

SECRETS = ("Mueller", "PID-7731", "19550101", "20240229", "St-Anna", "Dr-Weber", "ACC-99", "Hedwig")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording whose header names everybody, also in a region, in private tags and in UIDs."""
    truth = make_recording(5, 2)
    dataset = make_dicom(scroll(truth.strip, 600, 300), MM_PER_ROW, S_PER_COLUMN)
    dataset.PatientName, dataset.PatientID = "Mueller^Hedwig", "PID-7731"
    dataset.PatientBirthDate, dataset.StudyDate, dataset.ContentDate = "19550101", "20240229", ""
    dataset.InstitutionName, dataset.OperatorsName = "St-Anna", "Dr-Weber"
    dataset.AccessionNumber, dataset.StudyDescription = "ACC-99", "Mueller, follow-up"
    dataset.ImageComments = "Hedwig Mueller 19550101"
    block = dataset.private_block(0x0011, "St-Anna", create=True)
    block.add_new(0x01, "LO", "Mueller")
    other = Dataset()
    other.PatientID = "PID-7731"
    dataset.OtherPatientIDsSequence = [other]
    dataset.SequenceOfUltrasoundRegions[2].add_new(0x00104000, "LT", "Mueller PID-7731")
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    rows = "".join(
        f"{n},{upper:.2f},{lower:.2f}\n"
        for n, (upper, lower) in enumerate(zip(truth.upper, truth.lower, strict=True))
    )
    (tmp_path / "a_traces.csv").write_text("col,upper_row,lower_row\n" + rows)
    return tmp_path


def leaked(folder: Path) -> list[tuple[str, str]]:
    """(file, secret) for what any file below a folder holds, in its bytes or a picture's texts."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".png":
            data += repr(Image.open(path).info).encode()
        elif path.name.endswith((".nii", ".nii.gz")):
            data += nib.load(path).header.binaryblock
        found += [(path.name, secret) for secret in SECRETS if secret.encode() in data]
    return found


def test_windows_and_measurements_of_a_dicom_file(folder, tmp_path, params, monkeypatch, capsys):
    assert {name for _, name in leaked(folder)} == set(SECRETS)  # so the search does find them
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out"
    windows.main([str(folder / "a.dcm"), "--out", str(out / "windows")])
    species = SPECIES["mouse"]
    defaults = Defaults(species, (params.datasets.mmode.mm_per_row, 0.001))
    [strip] = read_recording(find_recordings([folder / "a.dcm"], [])[0], defaults, [])
    bad = np.zeros(strip.image.shape[1], bool)
    row = recordings.measure_recording(
        strip, strip.mask, bad, species.rates, species, out / "measured"
    )
    recordings.write_summary([row], species, out / "measured")
    written = {path.name for path in out.rglob("*") if path.is_file()}
    assert {"windows.csv", "a.png", "a_beats.csv", "a_figure.png", "recordings.csv"} <= written
    assert leaked(out) == []
    said = capsys.readouterr()
    assert not [secret for secret in SECRETS if secret in said.out + said.err]


def test_a_dicom_file_that_is_refused_is_not_quoted(folder):
    import pydicom

    dataset = pydicom.dcmread(folder / "a.dcm")
    del dataset.SequenceOfUltrasoundRegions
    dataset.save_as(folder / "b.dcm")
    with pytest.raises(InputError) as refusal:
        read_dicom(folder / "b.dcm")
    assert not [secret for secret in SECRETS if secret in str(refusal.value)]


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_label_maps_of_a_nifti_file(tmp_path, kind):
    image = kind(np.arange(32 * 20, dtype=np.int16).reshape(32, 20), np.diag([0.3, 0.5, 1, 1]))
    image.header["descrip"], image.header["aux_file"] = b"Mueller 19550101", b"PID-7731"
    image.header["intent_name"] = b"Hedwig"
    if kind is nib.Nifti1Image:
        image.header["db_name"] = b"ACC-99"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Dr-Weber at St-Anna"))
    path = tmp_path / "in/a.nii"
    path.parent.mkdir()
    nib.save(image, path)
    assert len(leaked(path.parent)) >= 6

    read = images.read_images(path)
    (tmp_path / "out").mkdir()
    read.save(np.ones((1, 20, 32), np.uint8), tmp_path / "out/a_seg.nii.gz")
    assert leaked(tmp_path / "out") == []
    saved = nib.load(tmp_path / "out/a_seg.nii.gz")
    assert np.allclose(saved.affine, image.affine)
    assert saved.header.get_zooms() == image.header.get_zooms()
