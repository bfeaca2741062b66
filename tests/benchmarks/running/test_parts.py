"""Words of the command line: sets, folders, products, layouts of authors."""

import cv2
import numpy as np
import pytest

from anomaly.errors import DatasetError, UnknownNameError
from benchmarks.running.parts import Part, find_parts, open_part


def put(root, *names, value=90):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), np.full((16, 16), value, np.uint8))


@pytest.fixture
def products(tmp_path):
    for name in ("bolt", "nut"):
        good = [f"{name}/train/good/{i}.png" for i in range(4)]
        put(tmp_path / "line", *good, f"{name}/test/good/0.png", f"{name}/test/dent/0.png")
    (tmp_path / "line" / "notes").mkdir()
    return tmp_path / "line"


def test_products_of_a_folder_are_experiments_of_their_own(products):
    found = find_parts([str(products), str(products / "nut")])
    assert [part.title for part in found] == ["line bolt", "line nut", "nut"]
    images = open_part(found[1], None, 0, None).images
    assert len(images.train) == 4
    assert {sample.kind for sample in images.test} == {"good", "dent"}


def test_a_public_set_in_the_layout_of_its_authors(tmp_path):
    for number in range(5):
        put(tmp_path, f"Data/Images/Normal/{number}.JPG")
    root = tmp_path / "visa"
    rows = ["object,split,label,image,mask"]
    for name, split, label in (("0", "train", "normal"), ("1", "train", "normal"), ("2", "test", "normal")):
        put(root, f"pcb1/{name}.png")
        rows.append(f"pcb1,{split},{label},pcb1/{name}.png,")
    put(root, "pcb1/3.png")
    put(root, "pcb1/3_mask.png", value=0)
    mask = np.zeros((16, 16), np.uint8)
    mask[2:6, 2:4] = 3  # VisA writes the number of the kind
    cv2.imwrite(str(root / "pcb1/3_mask.png"), mask)
    rows.append("pcb1,test,anomaly,pcb1/3.png,pcb1/3_mask.png")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")
    part = Part(f"visa={root}", "pcb1")
    assert part.title == "visa pcb1"
    protocol = open_part(part, None, 0, tmp_path / "masks")
    assert len(protocol.images.train) == 2
    normal, anomalous = protocol.images.test
    assert normal.mask is None
    assert (cv2.imread(str(anomalous.mask), cv2.IMREAD_GRAYSCALE) > 127).sum() == 8


def test_what_is_neither_set_nor_folder_is_named(products):
    with pytest.raises(UnknownNameError, match="magnetic_tile"):
        find_parts(["magnetic_tiles"])
    with pytest.raises(DatasetError, match="train/good"):
        find_parts([str(products / "notes")])
    with pytest.raises(UnknownNameError, match="data set"):
        find_parts(["no_set=somewhere"])


@pytest.mark.shared
def test_patients_of_the_chest_x_rays_are_known(shared):
    protocol = open_part(Part("cxr_kermany"), 20, 0, None)
    assert all(protocol.groups[path] for path in protocol.images.train)
    assert all(protocol.groups[sample.path] for sample in protocol.images.test)
