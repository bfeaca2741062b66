"""The way in: what is taken is durable and private, what is not is told why, whatever brought it."""

import json
import os
import stat
import threading
from types import SimpleNamespace

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from anomaly.errors import SettingError
from medical.pacs.contexts import storage_contexts
from medical.pacs.database import Database
from medical.pacs.errors import ObjectError, SpoolError
from medical.pacs.folder import DropFolder
from medical.pacs.headers import digest_of, valid_uid
from medical.pacs.intake import Intake
from medical.pacs.overview import Overview
from medical.pacs.queue import Queue
from medical.pacs.settings import FolderSettings, SpoolSettings
from medical.pacs.spool import Spool
from medical.pacs.states import Receipt
from medical.privacy.encryption import MAGIC
from tests.medical import phantoms

KEY = bytes(range(32))


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def room(request, tmp_path, logged):
    """Spool, queue and intake."""
    spool = Spool(tmp_path / "spool", request.param)
    database = Database.open(spool.folder / "queue.sqlite", create=True)
    queue = Queue(database, spool.pseudonyms.of)
    limits = SpoolSettings(folder=spool.folder, free_gigabytes=0, max_object_megabytes=1)
    intake = Intake(spool, queue, limits, lambda: None)
    yield SimpleNamespace(
        spool=spool, queue=queue, intake=intake, overview=Overview(database), lines=logged, limits=limits
    )
    database.close()


@pytest.fixture
def slices():
    return phantoms.ct_series((2, 8, 8))


def incoming(room, dataset):
    file = room.spool.new_file()
    dataset.save_as(file, enforce_file_format=True)
    return file


def refused(room, file, **options):
    with pytest.raises(ObjectError) as caught:
        room.intake.take(file, "PEER", **options)
    assert list(room.spool.incoming.iterdir()) == []
    return caught.value


def test_what_is_taken_is_private_whole_and_lent_unchanged(room, slices):
    file = incoming(room, slices[0])
    content, digest = file.read_bytes(), digest_of(file)
    assert room.intake.take(file, "PEER") is Receipt.NEW
    room.queue.complete(0)
    job = room.queue.claim()
    assert [one.digest for one in job.files] == [digest]
    (stored,) = (room.spool.folder / "studies").rglob("*.dcm")
    assert stored.read_bytes().startswith(MAGIC) == room.spool.encrypted
    for path in (stored, room.spool.folder / "queue.sqlite"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700
    with room.spool.lent(job.files) as (lent,):
        assert lent.read_bytes() == content
    assert list((room.spool.folder / "private").iterdir()) == []


def test_the_same_object_twice_is_one_and_another_with_its_uid_is_refused(room, slices):
    assert room.intake.take(incoming(room, slices[0]), "PEER") is Receipt.NEW
    slices[0].file_meta.ImplementationVersionName = "ANOTHER SENDER"
    assert room.intake.take(incoming(room, slices[0]), "PEER") is Receipt.SAME
    slices[0].SeriesDescription = "changed"
    assert refused(room, incoming(room, slices[0])).status == 0xC111
    (row,) = room.overview.rows()
    assert row.objects == 1


def test_what_cannot_be_taken_is_told_why(room, slices):
    image = slices[0]
    assert refused(room, incoming(room, image), uid="1.2.3").status == 0xA900
    no_dicom = room.spool.new_file()
    no_dicom.write_bytes(b"photograph" * 50)
    assert refused(room, no_dicom).status == 0xC000
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    assert refused(room, incoming(room, image)).status == 0x0122
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    assert refused(room, incoming(room, image)).status == 0x0122
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert "transfer syntax" in str(refused(room, incoming(room, image)))
    assert refused(room, incoming(room, phantoms.ct_series((1, 800, 800))[0])).status == 0xA700


def test_images_that_no_model_judges_are_taken_so_that_their_study_is_analysed_in_part_only(room, slices):
    for made, tail in zip(slices, ("128", "12.1"), strict=True):
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{tail}"
        assert room.intake.take(incoming(room, made), "PEER") is Receipt.NEW
    (row,) = room.overview.rows()
    assert row.objects == 2


def test_what_is_asked_for_and_offered_fits_into_one_association():
    """PS3.8 9.3.2: the identifier of a presentation context is an odd number below 256."""
    assert len(storage_contexts()) + 2 <= 128


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_hostile_uids_never_become_names(room, slices):
    slices[0].StudyInstanceUID = "../../../x"
    assert refused(room, incoming(room, slices[0])).status == 0x0117
    for text in ("1", "1.02", "1..2", "1.2.", ".1", "1." * 32 + "1", "1.2/3", "1.2\n", ""):
        assert not valid_uid(text), text
    assert valid_uid("1.2.840.0.9")


def test_without_room_it_may_come_later(room, slices):
    room.limits = SpoolSettings(folder=room.spool.folder, free_gigabytes=10**9)
    intake = Intake(room.spool, room.queue, room.limits, lambda: None)
    with pytest.raises(ObjectError) as caught:
        intake.take(incoming(room, slices[0]), "PEER")
    assert (caught.value.status, caught.value.later) == (0xA700, True)
    assert not intake.roomy()


def test_a_long_queue_takes_no_further_study_but_the_rest_of_those_that_have_begun(room, slices):
    limits = SpoolSettings(folder=room.spool.folder, free_gigabytes=0, max_waiting_studies=1)

    def fresh():
        return Intake(room.spool, room.queue, limits, lambda: None)

    for seed in ("first", "second"):
        assert fresh().take(incoming(room, phantoms.ct_series((1, 8, 8), seed=seed)[0]), "PEER") is Receipt.NEW
    with pytest.raises(ObjectError) as caught:
        fresh().take(incoming(room, slices[0]), "PEER")
    assert (caught.value.status, caught.value.later) == (0xA700, True)
    assert fresh().take(incoming(room, phantoms.ct_series((2, 8, 8), seed="first")[1]), "PEER") is Receipt.NEW


def test_a_crash_between_file_and_row_leaves_nothing_behind(room, slices):
    room.intake.take(incoming(room, slices[0]), "PEER")
    study = next((room.spool.folder / "studies").iterdir())
    (study / "orphan.dcm").write_bytes(b"x")
    incoming(room, slices[1])
    room.spool.begin()
    assert room.spool.sweep(room.overview.files()) == 1
    assert len(list(study.iterdir())) == 1
    assert list(room.spool.incoming.iterdir()) == []


def test_a_changed_file_is_noticed(room, slices):
    room.intake.take(incoming(room, slices[0]), "PEER")
    room.queue.complete(0)
    job = room.queue.claim()
    (stored,) = (room.spool.folder / "studies").rglob("*.dcm")
    stored.write_bytes(stored.read_bytes()[:-2] + b"\7\7")
    with pytest.raises(SpoolError), room.spool.lent(job.files):
        pass


def test_a_spool_with_a_key_is_not_opened_without(tmp_path, slices):
    spool = Spool(tmp_path, KEY)
    spool.place(spool.prepare(incoming(SimpleNamespace(spool=spool), slices[0]), "a.dcm"), "study", "a.dcm")
    with pytest.raises(SettingError, match="stored with a key"):
        Spool(tmp_path, None)


@pytest.fixture
def drop(room, tmp_path):
    settings = FolderSettings(path=tmp_path / "drop", settle_seconds=0.0)
    return DropFolder(settings, room.intake, room.spool), tmp_path / "drop"


def test_the_drop_folder_is_emptied_into_the_spool(room, drop, slices):
    watched, folder = drop
    (folder / "sub").mkdir()
    slices[0].save_as(folder / "sub" / "one.dcm", enforce_file_format=True)
    slices[1].save_as(folder / "two.dcm.part", enforce_file_format=True)
    (folder / "PLANTED^PHANTOM.txt").write_text("no DICOM")
    (folder / "link").symlink_to(folder / "two.dcm.part")
    assert watched.look() == 2
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "PLANTED^PHANTOM.txt",
        "PLANTED^PHANTOM.txt.reason.txt",
        "link",
        "two.dcm.part",
    ]
    assert "no DICOM file" in (folder / "refused" / "PLANTED^PHANTOM.txt.reason.txt").read_text()
    assert "PLANTED" not in json.dumps(room.lines())
    (folder / "two.dcm.part").rename(folder / "two.dcm")
    watched.look()
    (row,) = room.overview.rows()
    assert row.objects == 2


def test_a_file_that_still_grows_is_left_alone(room, slices, tmp_path):
    settings = FolderSettings(path=tmp_path / "drop", settle_seconds=0.15)
    watched = DropFolder(settings, room.intake, room.spool)
    slices[0].save_as(tmp_path / "whole", enforce_file_format=True)
    content, file = (tmp_path / "whole").read_bytes(), tmp_path / "drop" / "one.dcm"
    file.write_bytes(content[:400])
    assert watched.look() == 0
    file.write_bytes(content)
    assert watched.look() == 0
    threading.Event().wait(0.2)
    assert watched.look() == 1
    assert not (tmp_path / "drop" / "refused").exists()


def test_a_full_disk_leaves_files_where_they_are(room, drop, slices):
    watched, folder = drop
    watched._intake = Intake(
        room.spool,
        room.queue,
        SpoolSettings(folder=room.spool.folder, free_gigabytes=10**9),
        lambda: None,
    )
    slices[0].save_as(folder / "one.dcm", enforce_file_format=True)
    assert watched.look() == 0
    assert (folder / "one.dcm").exists()
    assert os.listdir(folder) == ["one.dcm"]  # noqa: PTH208
    assert dcmread(folder / "one.dcm").Modality == "CT"
