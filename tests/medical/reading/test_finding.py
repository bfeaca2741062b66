"""Files are found in folders, DICOMDIRs and archives; each is in the inventory once, nothing is dropped or merged."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from pydicom.fileset import FileSet

from anomaly.errors import SettingError
from medical.pseudonyms import Pseudonyms
from medical.reading import Limits, PixelReader, take_inventory
from medical.refusals import Reason
from tests.medical import phantoms

SHAPE = (3, 12, 14)


@pytest.fixture
def taken(pseudonyms, pixels):
    return lambda *paths: take_inventory(paths, pseudonyms, pixels=pixels)


def codes(inventory):
    return {
        entry.name: str(getattr(getattr(entry.found, "refusal", None), "reason", "OK")) for entry in inventory.files
    }


def test_folder_with_other_things_in_it(tmp_path, taken):
    phantoms.save(phantoms.ct_series(SHAPE), tmp_path / "study" / "series")
    (tmp_path / "study" / "readme.txt").write_text("no DICOM")
    (tmp_path / "study" / "empty").touch()
    os.mkfifo(tmp_path / "study" / "pipe")
    (tmp_path / "study" / "dangling").symlink_to("nowhere")
    inventory = taken(tmp_path)
    ok = {f"study/series/000{n}.dcm": "OK" for n in (1, 2, 3)}
    bad = dict.fromkeys(["study/readme.txt", "study/empty", "study/pipe", "study/dangling"], "NOT_DICOM")
    assert codes(inventory) == ok | bad
    assert len(inventory.refused) == 4
    assert len(inventory.studies) == 1


def test_names_that_cannot_be_shown(tmp_path, taken):
    for name in (b"latin-\xe4.dcm", b"bell\x07\x1b[31m.dcm"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"no DICOM")
    assert sorted(codes(taken(tmp_path))) == ["bell\\x07\\x1b[31m.dcm", "latin-\\udce4.dcm"]


def test_nothing_there(tmp_path, taken):
    with pytest.raises(SettingError, match="nothing at"):
        taken(tmp_path / "missing")
    assert taken(tmp_path).files == ()


def test_same_file_twice_and_same_object_twice_are_said(tmp_path, taken):
    paths = phantoms.save(phantoms.ct_series(SHAPE), tmp_path)
    shutil.copy(paths[1], tmp_path / "copy.dcm")
    (tmp_path / "link.dcm").symlink_to(paths[2])
    found = codes(taken(tmp_path, paths[0]))
    assert [name for name, code in found.items() if code == "OK"] == ["0002.dcm", "0003.dcm"]
    inventory = taken(tmp_path, paths[0])
    refused = [entry for entry in inventory.files if hasattr(entry.found, "refusal")]
    assert [entry.name for entry in refused] == ["copy.dcm", "link.dcm", "0001.dcm"]
    assert {entry.found.refusal.reason for entry in refused} == {Reason.DUPLICATE_OBJECT}
    assert len(inventory.studies[0].instances) == 3
    assert len(inventory.studies[0].refused) == 1  # the copy; the other two are the very same file


def write_disc(folder):
    files = FileSet()
    for slice_ in phantoms.ct_series(SHAPE):
        files.add(slice_)
    files.write(folder)
    files._stage["t"].cleanup()  # pydicom leaves that to the garbage collection, which warns


def test_dicomdir(tmp_path, taken):
    write_disc(tmp_path / "cd")
    by_folder, by_directory = taken(tmp_path / "cd"), taken(tmp_path / "cd" / "DICOMDIR")
    assert set(codes(by_folder)) == set(codes(by_directory))
    assert set(codes(by_folder).values()) == {"OK"}
    assert len(by_folder.files) == 3
    gone = by_folder.studies[0].instances[1].path
    gone.unlink()
    for inventory in (taken(tmp_path / "cd"), taken(tmp_path / "cd" / "DICOMDIR")):
        assert sorted(codes(inventory).values()) == ["NOT_DICOM", "OK", "OK"]
        assert "not there" in inventory.refused[0].refusal.detail


def test_dicomdir_that_leads_out_of_its_folder(tmp_path, taken):
    write_disc(tmp_path / "cd")
    path = tmp_path / "cd" / "DICOMDIR"
    content = path.read_bytes()
    assert content.count(b"PT000000") == 3
    path.write_bytes(content.replace(b"PT000000", b"..      "))
    inventory = taken(path)
    assert {entry.found.refusal.reason for entry in inventory.files} == {Reason.DAMAGED}
    path.write_bytes(content[: len(content) // 2])
    assert codes(taken(path)) == {"DICOMDIR": "TRUNCATED"}


def zipped(path, members, **how):
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_archive_is_unpacked_and_removed(tmp_path, taken, pixels):
    paths = phantoms.save(phantoms.ct_series(SHAPE), tmp_path / "series")
    members = {f"study/{one.name}": one.read_bytes() for one in paths} | {"notes.txt": b"hello, nothing in here"}
    archive = zipped(tmp_path / "study.zip", members, compression=zipfile.ZIP_DEFLATED)
    with taken(archive) as inventory:
        ok = {f"study.zip!study/000{n}.dcm": "OK" for n in (1, 2, 3)}
        assert codes(inventory) == ok | {"study.zip!notes.txt": "NOT_DICOM"}
        (series,) = inventory.studies[0].series
        assert pixels.volume(series).values.shape == SHAPE
        unpacked = inventory.unpacked
        assert unpacked.stat().st_mode & 0o077 == 0  # nobody else reads it
    assert not unpacked.exists()


def test_two_archives_of_the_same_names(tmp_path, taken):
    for number in (1, 2):
        path = phantoms.save(phantoms.ct_series(SHAPE, seed=str(number))[0], tmp_path / str(number))[0]
        zipped(tmp_path / f"{number}.zip", {"a.dcm": path.read_bytes()})
    with taken(tmp_path / "1.zip", tmp_path / "2.zip") as inventory:
        assert codes(inventory) == {"1.zip!a.dcm": "OK", "2.zip!a.dcm": "OK"}
        assert len(inventory.studies) == 2


@pytest.mark.parametrize("name", ["../../escaped", "/etc/escaped", "a/../../escaped", "..\\escaped", "C:\\escaped"])
def test_archive_whose_names_lead_out(tmp_path, taken, name):
    archive = zipped(tmp_path / "bad.zip", {name: b"x"})
    with taken(archive) as inventory:
        (entry,) = inventory.files
        assert entry.found.refusal.reason == Reason.DAMAGED
    assert not list(tmp_path.parent.rglob("*escaped*"))


def test_archive_bombs(tmp_path, pseudonyms):
    bomb = zipped(tmp_path / "bomb.zip", {"zeros": bytes(64 << 20)}, compression=zipfile.ZIP_DEFLATED)
    many = zipped(tmp_path / "many.zip", {str(number): b"" for number in range(30)})
    full = zipped(tmp_path / "full.zip", {str(number): os.urandom(3 << 20) for number in range(4)})
    with (
        PixelReader(Limits(archive_files=20, archive_bytes=8 << 20)) as reader,
        take_inventory([bomb, many, full], pseudonyms, pixels=reader) as inventory,
    ):
        reasons = [(entry.name, entry.found.refusal.reason) for entry in inventory.files]
        used = sum(path.stat().st_size for path in inventory.unpacked.iterdir())
    assert reasons[:2] == [("bomb.zip!zeros", Reason.TOO_LARGE), ("many.zip!", Reason.TOO_LARGE)]
    assert [reason for _, reason in reasons[2:]].count(Reason.TOO_LARGE) == 2
    assert used <= 8 << 20


def test_archive_that_is_damaged(tmp_path, taken):
    path = phantoms.save(phantoms.projection(), tmp_path / "one")[0]
    archive = zipped(tmp_path / "cut.zip", {"a.dcm": path.read_bytes()})
    archive.write_bytes(archive.read_bytes()[:-60])
    with taken(archive) as inventory:
        assert codes(inventory) == {"cut.zip!": "DAMAGED"}


def study_of(patient, study, issuer="", **how):
    made = phantoms.ct_series(SHAPE, seed=study, **how)[0]
    made.PatientID = patient
    if issuer:
        made.IssuerOfPatientID = issuer
    return made


def test_patients(tmp_path, taken, pseudonyms, pixels):
    made = [
        study_of("A", "1"),
        study_of("A", "2"),
        study_of("A", "3", issuer="ELSEWHERE"),
        study_of("B", "4"),
        study_of("", "5"),
        study_of("", "6"),
        study_of("Anonymous", "7"),
        study_of("0000", "8"),
        study_of("unknown", "9"),
    ]
    phantoms.save(made, tmp_path)
    patients = [study.patient for study in taken(tmp_path).studies]
    assert patients[0] == patients[1] == patients[2]  # who issued the identifier is not always said
    assert len(set(patients)) == 7  # unknown patients are not one patient
    assert "A" not in patients
    other = take_inventory([tmp_path], Pseudonyms(b"o" * 32), pixels=pixels)
    assert not {study.patient for study in other.studies} & set(patients)


def test_study_of_two_patients_is_refused(tmp_path, taken):
    phantoms.save([study_of("A", "one/1"), study_of("B", "one/2"), study_of("C", "two")], tmp_path)
    inventory = taken(tmp_path)
    mixed = next(study for study in inventory.studies if study.refused)
    assert not mixed.series
    assert {one.refusal.reason for one in mixed.refused} == {Reason.HEADER}
    assert len(mixed.refused) == 2
    assert len(inventory.studies) == 2


def test_issuers_tell_patients_apart_only_where_all_are_known(tmp_path, taken):
    first, second = study_of("A", "one/1", issuer="X"), study_of("A", "one/2")  # e.g. a report without the issuer
    phantoms.save([first, second], tmp_path / "same")
    (study,) = taken(tmp_path / "same").studies
    assert len(study.instances) == 2
    phantoms.save([study_of("A", "1", issuer="X"), study_of("A", "2", issuer="Y")], tmp_path / "two")
    assert len({study.patient for study in taken(tmp_path / "two").studies}) == 2
    phantoms.save([study_of("A", "one/1", issuer="X"), study_of("A", "one/2", issuer="Y")], tmp_path / "mixed")
    (study,) = taken(tmp_path / "mixed").studies
    assert not study.series
    assert {one.refusal.reason for one in study.refused} == {Reason.HEADER}


def test_study_of_which_nothing_can_be_analysed_is_still_a_study(tmp_path, taken):
    made = phantoms.projection()
    made.PhotometricInterpretation = "HSV"
    phantoms.save(made, tmp_path)
    (study,) = taken(tmp_path).studies
    assert not study.series
    assert study.refused[0].study == study.uid


def test_report_of_a_study_stays_with_it(tmp_path, taken):
    image, report = phantoms.projection(), phantoms.projection()
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = phantoms.ROOT + "9"
    del report.PixelData
    phantoms.save([image, report], tmp_path)
    (study,) = taken(tmp_path).studies
    assert len(study.instances) == 1
    assert [(one.refusal.reason, one.kind) for one in study.refused] == [(Reason.NO_IMAGE, "Comprehensive SR")]


def test_progress_counts_every_file(tmp_path, pseudonyms, pixels):
    phantoms.save(phantoms.ct_series(SHAPE), tmp_path)
    said = []

    def progress(what, steps):
        said.append((what, steps))
        return lambda done: said.append(done)

    take_inventory([Path(tmp_path)], pseudonyms, progress, pixels)
    assert said == [("Reading headers", 3), 1, 1, 1]
