"""Files that are cut, broken or made to harm: refused with a code; neither process dies, hangs or grows."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from medical.reading import Limits, PixelReader, take_inventory
from medical.reading.limits import MIB
from medical.refusals import Reason, RefusedError
from tests.medical import phantoms

CUT = {Reason.TRUNCATED, Reason.NOT_DICOM, Reason.NO_PIXELS, Reason.HEADER, Reason.DAMAGED}


def written(dataset):
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def in_syntax(syntax):
    made = phantoms.ct_series((2, 40, 44))[0]
    if syntax is not None:
        made.compress(syntax, generate_instance_uid=False)
    return written(made)


@pytest.fixture
def tried(tmp_path, pseudonyms, pixels):
    """Reads bytes as a file, header and pixels; returns the code, or None where they can be analysed."""

    def code(content):
        path = tmp_path / "object"
        path.write_bytes(content)
        (entry,) = take_inventory([path], pseudonyms, pixels=pixels).files
        if (refusal := getattr(entry.found, "refusal", None)) is not None:
            return refusal.reason
        try:
            pixels.check(entry.found)
        except RefusedError as error:
            return error.refusal.reason
        return None

    return code


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless, JPEGLSLossless, "multi-frame"])
def test_cut_at_every_twentieth_and_wherever(syntax, tried):
    whole = written(phantoms.enhanced_ct((3, 20, 24))) if syntax == "multi-frame" else in_syntax(syntax)
    assert tried(whole) is None
    for part in range(20):
        assert tried(whole[: len(whole) * part // 20]) in CUT

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, len(whole) - 1))
    @example(len(whole) - 1)
    def cut(length):
        assert tried(whole[:length]) in CUT

    cut()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=12))
def test_bytes_changed_anywhere_end_in_a_code_or_an_image(tried, pixels, changes):
    content = bytearray(in_syntax(JPEG2000Lossless))
    for place, value in changes:
        content[place % len(content)] = value
    before = pixels.worker.pid
    assert tried(bytes(content)) in {None, *Reason}
    assert tried(in_syntax(None)) is None
    assert before is not None


def deflated(inflated_bytes):
    """A valid object whose private element of zeros unpacks to so many bytes."""
    made = phantoms.ct_series((2, 40, 44))[0]
    whole = written(made)
    start = whole.index(b"\x08\x00\x05\x00CS")
    meta = whole[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta.replace(b"\x02\x00\x10\x00UI\x14\x00", b"\x02\x00\x10\x00UI\x16\x00")
    pixels = whole.index(b"\xe0\x7f\x10\x00OW")
    zeros = b"\x11\x00\x10\x10OB\0\0" + struct.pack("<L", inflated_bytes)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    pieces = [packer.compress(whole[start:pixels] + zeros)]
    pieces += [packer.compress(bytes(MIB)) for _ in range(inflated_bytes // MIB)]
    return meta + b"".join(pieces) + packer.compress(whole[pixels:]) + packer.flush()


@pytest.fixture(scope="module")
def bomb():
    return deflated(300 * MIB)


def test_deflated_object_is_read_and_its_bomb_refused(tried, bomb):
    assert tried(deflated(MIB)) is None
    assert len(bomb) < MIB
    assert tried(bomb) == Reason.TOO_LARGE
    assert tried(deflated(70 * MIB)) == Reason.TOO_LARGE  # inflated it is allowed, its header is not
    assert tried(bomb[: len(bomb) // 2]) in {Reason.TOO_LARGE, Reason.TRUNCATED}


def j2k_declaring(size):
    made = phantoms.ct_series((2, 40, 44))[0]
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    place = made.PixelData.index(b"\xff\x4f\xff\x51") + 8
    made.PixelData = made.PixelData[:place] + struct.pack(">2L", *size) + made.PixelData[place + 8 :]
    return made


def test_codestream_that_declares_another_size(tried):
    assert tried(written(j2k_declaring((44, 40)))) is None
    assert tried(written(j2k_declaring((60000, 60000)))) == Reason.DAMAGED


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_frame_cut_short_in_a_sound_object(tried, syntax):
    made = phantoms.ct_series((2, 64, 64))[0]
    made.compress(syntax, generate_instance_uid=False)
    frame = next(generate_frames(made.PixelData, number_of_frames=1))
    for part in range(1, 20):
        for end in (b"", b"\xff\xd9"):
            made.PixelData = encapsulate([frame[: len(frame) * part // 20] + end])
            assert tried(written(made)) in {Reason.TRUNCATED, Reason.DAMAGED, Reason.DECODER, Reason.PIXELS}


def test_compressed_frame_of_which_tiles_are_missing(tried):
    made = j2k_declaring((440, 400))  # tiles stay 44 x 40
    made.Rows, made.Columns = 400, 440
    assert tried(written(made)) == Reason.TRUNCATED


def test_header_that_declares_too_much(tried):
    made = j2k_declaring((60000, 60000))
    made.Rows = made.Columns = 60000
    assert tried(written(made)) == Reason.TOO_LARGE
    made = phantoms.enhanced_ct((2, 20, 24))
    made.NumberOfFrames = 2**31 - 1
    assert tried(written(made)) == Reason.TOO_LARGE


def nested(depth):
    made = phantoms.ct_series((2, 40, 44))[0]
    start = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    whole = written(made)
    pixels = whole.index(b"\xe0\x7f\x10\x00OW")
    return whole[:pixels] + start * depth + end * depth + whole[pixels:]


@pytest.mark.parametrize(("depth", "code"), [(20, None), (2000, Reason.DAMAGED), (200_000, Reason.DAMAGED)])
def test_nested_sequences(tried, depth, code):
    assert tried(nested(depth)) == code


def test_header_of_too_many_elements(tmp_path, pseudonyms):
    whole = in_syntax(None)
    pixels = whole.index(b"\xe0\x7f\x10\x00OW")
    many = b"".join(struct.pack("<HH2sH", 0x0011, 0x1000 + n, b"LO", 0) for n in range(6_000))
    path = tmp_path / "object"
    path.write_bytes(whole[:pixels] + many + whole[pixels:])
    with PixelReader(Limits(header_elements=5_000)) as reader:
        (entry,) = take_inventory([path], pseudonyms, pixels=reader).files
    assert entry.found.refusal.reason == Reason.TOO_LARGE


def test_element_that_claims_four_gigabytes(tried):
    whole = in_syntax(None)
    pixels = whole.index(b"\xe0\x7f\x10\x00OW")
    claim = b"\x11\x00\x10\x10OB\0\0\xf0\xff\xff\xff"
    assert tried(whole[:pixels] + claim + whole[pixels:]) == Reason.TRUNCATED


@pytest.mark.parametrize(
    "uid", ["../../../x", "1.2.03.4", "1..2", ".1", "1.2.", "1." + "2" * 63, "1.2\\3.4", "", "1.2.a", "/etc/passwd"]
)
@pytest.mark.parametrize("name", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"])
@pytest.mark.filterwarnings("ignore")  # of pydicom, which writes them
def test_hostile_uids(tried, uid, name):
    made = phantoms.ct_series((2, 40, 44))[0]
    kept = made.file_meta.MediaStorageSOPInstanceUID
    setattr(made, name, uid)
    made.file_meta.MediaStorageSOPInstanceUID = kept
    expected = None if (name, uid) == ("FrameOfReferenceUID", "") else Reason.HEADER
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=False)
    assert tried(buffer.getvalue()) == expected


def test_no_preamble(tried):
    whole = in_syntax(None)
    assert tried(whole[132:]) is None  # file meta information states the transfer syntax
    start = whole.index(b"\x08\x00\x05\x00CS")
    assert tried(whole[start:]) == Reason.TRANSFER_SYNTAX  # a data set on its own does not
    assert tried(b"%PDF-1.7 ...") == Reason.NOT_DICOM
    assert tried(b"") == Reason.NOT_DICOM


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Rows": None}, Reason.HEADER),
        ({"BitsAllocated": 32}, Reason.HEADER),
        ({"BitsStored": 17}, Reason.HEADER),
        ({"HighBit": 3}, Reason.HEADER),
        ({"NumberOfFrames": "2"}, Reason.HEADER),
        ({"SamplesPerPixel": 3}, Reason.HEADER),
        ({"PhotometricInterpretation": "ARGB"}, Reason.PHOTOMETRIC),
        ({"PixelData": None}, Reason.NO_PIXELS),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, Reason.HEADER),  # the file meta information says CT
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, Reason.HEADER),  # the file meta information says CT
    ],
)
def test_header_that_is_not_sound(tried, change, code):
    made = phantoms.ct_series((2, 40, 44))[0]
    for name, value in change.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=False)
    assert tried(buffer.getvalue()) == code


def test_encapsulated_garbage_is_the_decoders_refusal(tried):
    made = phantoms.ct_series((2, 40, 44))[0]
    made.compress(JPEGLSLossless, generate_instance_uid=False)
    frame = bytearray(next(generate_frames(made.PixelData, number_of_frames=1)))
    frame[60:-20] = os.urandom(len(frame) - 80)
    made.PixelData = encapsulate([bytes(frame)])
    assert tried(written(made)) in {Reason.DECODER, Reason.DAMAGED, None}


def test_memory_limit_refuses_and_a_fresh_process_goes_on(tmp_path, pseudonyms):
    big = phantoms.projection((2500, 2500), bits=16, seed="big")
    small = phantoms.projection(seed="small")
    paths = phantoms.save([big, small], tmp_path)
    with PixelReader(Limits(memory_bytes=24 * MIB)) as reader:
        large, little = (entry.found for entry in take_inventory(paths, pseudonyms, pixels=reader).files)
        with pytest.raises(RefusedError) as caught:
            reader.image(large)
        assert caught.value.refusal.reason == Reason.DECODER_LIMIT
        assert reader.image(little).values.shape == (64, 48)


def test_time_limit_kills_and_a_fresh_process_goes_on(tmp_path, pseudonyms):
    path = phantoms.save(phantoms.projection(), tmp_path)[0]
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # nothing ever writes to it: opening it waits for ever
    with PixelReader(Limits(seconds=2)) as reader:
        begun = time.monotonic()
        with pytest.raises(RefusedError, match="longer than"):
            reader.worker.ask("header", fifo)
        assert time.monotonic() - begun < 30
        (entry,) = take_inventory([path], pseudonyms, pixels=reader).files
        assert reader.image(entry.found).values.shape == (64, 48)


def test_death_of_the_process_is_one_refusal(tmp_path, pseudonyms):
    path = phantoms.save(phantoms.projection(), tmp_path)[0]
    with PixelReader() as reader:
        (entry,) = take_inventory([path], pseudonyms, pixels=reader).files
        os.kill(reader.worker.pid, 9)
        with pytest.raises(RefusedError, match="DECODER: the reading process ended"):
            reader.image(entry.found)
        assert reader.image(entry.found).values.shape == (64, 48)


def test_worker_holds_no_key(monkeypatch, tmp_path):
    monkeypatch.setenv("ANOMALY_MEDICAL_KEY", "ab" * 32)
    with PixelReader() as reader:
        with pytest.raises(RefusedError):
            reader.worker.ask("header", tmp_path)
        environment = Path(f"/proc/{reader.worker.pid}/environ").read_bytes()
    assert b"PYTHONPATH" in environment
    assert b"ab" * 32 not in environment


def test_worker_ends_with_its_parent(tmp_path):
    program = (
        "import sys, pathlib, os; from medical.reading import PixelReader; from medical.refusals import RefusedError\n"
        "reader = PixelReader()\n"
        "try: reader.worker.ask('header', pathlib.Path(sys.argv[1]))\n"
        "except RefusedError: print(reader.worker.pid, flush=True); os._exit(9)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "nothing")]
    root = Path(__file__).parents[3]
    pid = int(subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60).stdout)
    end = time.monotonic() + 20
    while (proc := Path(f"/proc/{pid}/cmdline")).exists() and proc.read_bytes() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()


def test_file_that_changed_since_it_was_listed(tmp_path, pseudonyms, pixels):
    path = phantoms.save(phantoms.projection(seed="before"), tmp_path)[0]
    (entry,) = take_inventory([path], pseudonyms, pixels=pixels).files
    time.sleep(0.01)
    phantoms.save(phantoms.projection(seed="after"), tmp_path)
    with pytest.raises(RefusedError, match="another object than when it was listed"):
        pixels.image(entry.found)


def peak_mib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def test_peak_memory_of_hostile_files(tmp_path, pseudonyms, bomb):
    bombs = [bomb, written(j2k_declaring((60000, 60000))), nested(20_000)]
    paths = []
    for number, bomb in enumerate(bombs):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(bomb)
    with PixelReader() as reader:
        for entry in take_inventory(paths, pseudonyms, pixels=reader).files:
            if not hasattr(entry.found, "refusal"):
                with pytest.raises(RefusedError):
                    reader.image(entry.found)
        assert peak_mib(reader.worker.pid) < 1000


def test_words_of_refusals_hold_no_patient_data(tmp_path, pseudonyms, pixels):
    made = phantoms.ct_series((2, 40, 44))[0]
    made.PhotometricInterpretation = "PLANTED 4711"
    made.RescaleSlope = 0
    made.Modality = "PLANTED"
    inside = Dataset()
    inside.PatientName = "PLANTED^AGAIN"
    made.ReferencedImageSequence = [inside]
    path = phantoms.save(made, tmp_path)[0]
    (entry,) = take_inventory([path], pseudonyms, pixels=pixels).files
    assert "PLANTED" not in entry.found.refusal.detail
    assert "4711" not in entry.found.refusal.detail


def test_what_is_no_term_of_the_standard_is_not_repeated(tmp_path, pseudonyms, pixels):
    for number, changes in enumerate(({"Modality": "DOE"}, {"PhotometricInterpretation": "DOE"})):
        made = phantoms.projection(seed=f"term {number}")
        for name, value in changes.items():
            setattr(made, name, value)
        made.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    with take_inventory([tmp_path], pseudonyms, pixels=pixels) as inventory:
        first, second = inventory.files
    assert first.found.modality == first.about["modality"] == "unknown"
    assert "DOE" not in str(second.found.refusal)
    assert second.about["modality"] == "DX"
