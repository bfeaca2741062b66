"""Tiny trees of the true layout of every public set: a table of makers.

A maker writes a tree and returns what a loader must count in it ("split/label" -> number, in every category), and what
may be removed: path -> a word that the error must then hold.
"""

import csv
import json

import cv2
import numpy as np
import pytest

from benchmarks.datasets.chest import CHEXPERT_FINDINGS
from benchmarks.datasets.registry import SETS
from tests.benchmarks.datasets.originals import brain, brats_case, nifti, rsna_file, vindr_file, x_ray

GREY = cv2.imencode(".png", np.arange(64, dtype=np.uint8).reshape(8, 8))[1].tobytes()
JPEG = cv2.imencode(".jpg", np.arange(64, dtype=np.uint8).reshape(8, 8))[1].tobytes()
MASK = np.zeros((8, 8), np.uint8)
MASK[2:4, 2:6] = 255
MARKED = cv2.imencode(".png", MASK)[1].tobytes()
CLASSES = cv2.imencode(".png", MASK // 255 * 3)[1].tobytes()
EMPTY = cv2.imencode(".png", MASK * 0)[1].tobytes()
VOC = (
    "<annotation><object><name>crazing</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>"
    "</object></annotation>"
)


def put(root, *names, data=GREY):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


def table(root, name, header, *rows):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def counts(normal=0, test_normal=0, test_anomalous=0, **more):
    own = {"train/normal": normal, "test/normal": test_normal, "test/anomalous": test_anomalous}
    own |= {name.replace("__", "/"): number for name, number in more.items()}
    return {name: number for name, number in own.items() if number}


def mvtec(name, good="good", mask="{}_mask.png", extra=()):
    def make(root):
        for one in SETS[name].categories:
            base = root / one
            put(base, f"train/{good}/000.png", f"train/{good}/001.png", f"test/{good}/000.png", "test/crack/000.png")
            put(base, f"ground_truth/crack/{mask.format('000')}", data=MARKED)
            put(base, *extra)
        one = SETS[name].categories[0]
        removable = {f"{one}/train/{good}/": f"train/{good}", f"{one}/test/crack/": "folders of anomalies"}
        removable[f"{one}/ground_truth/crack/{mask.format('000')}"] = "000.png"
        more = {"validation__normal": 1} if extra else {}
        return counts(2, 1, 1, **more), removable

    return make


def mvtec_ad_2(root):
    for one in SETS["mvtec_ad_2"].categories:
        base = root / one
        put(
            base, "train/good/000.png", "validation/good/000.png", "test_public/good/000.png", "test_public/bad/000.png"
        )
        put(base, "test_private/000.png", "test_private_mixed/000.png", "test_private_mixed/001.png")
        put(base, "test_public/ground_truth/bad/000_mask.png", data=MARKED)
    removable = {"vial/validation/": "validation/good", "rice/test_public/ground_truth/bad/000_mask.png": "000.png"}
    return counts(1, 1, 1, validation__normal=1, test__unknown=3), removable


def visa(root):
    rows = []
    for one in SETS["visa"].categories:
        images = [f"{one}/Data/Images/Normal/{i:04}.JPG" for i in range(2)] + [f"{one}/Data/Images/Anomaly/000.JPG"]
        put(root, *images, data=JPEG)
        put(root, f"{one}/Data/Masks/Anomaly/000.png", data=CLASSES)
        mask = f"{one}/Data/Masks/Anomaly/000.png"
        rows += [[one, "train", "normal", images[0], ""], [one, "test", "normal", images[1], ""]]
        rows.append([one, "test", "anomaly", images[2], mask])
    table(root, "split_csv/1cls.csv", ["object", "split", "label", "image", "mask"], *rows)
    removable = {"split_csv/1cls.csv": "1cls.csv", "pcb1/Data/Images/Normal/0001.JPG": "Normal/0001.JPG"}
    return counts(1, 1, 1), removable


def real_iad(root):
    for one in SETS["real_iad"].categories:
        base = root / "realiad_1024" / one
        put(base, "OK/S0001/a_C1.jpg", "OK/S0002/a_C1.jpg", "NG/BX/S0003/a_C1.jpg", data=JPEG)
        put(base, "NG/BX/S0003/a_C1.png", data=MARKED)
        rows = [{"image_path": f"OK/S000{i}/a_C1.jpg", "mask_path": None, "anomaly_class": "OK"} for i in (1, 2)]
        bad = {"image_path": "NG/BX/S0003/a_C1.jpg", "mask_path": "NG/BX/S0003/a_C1.png", "anomaly_class": "BX"}
        lists = {"train": rows[:1], "test": [rows[1], bad]}
        put(root, f"realiad_jsons/realiad_jsons_sv/{one}.json", data=json.dumps(lists))
    removable = {
        "realiad_jsons/realiad_jsons_sv/mint.json": "mint.json",
        "realiad_1024/usb/NG/BX/S0003/a_C1.png": ".png",
    }
    return counts(1, 1, 1), removable


def kolektor_sdd(root):
    put(root, "kos01/Part0.jpg", "kos01/Part1.jpg", "kos02/Part0.jpg", data=JPEG)
    put(root, "kos01/Part0_label.bmp", "kos02/Part0_label.bmp", data=cv2.imencode(".bmp", MASK * 0)[1].tobytes())
    put(root, "kos01/Part1_label.bmp", data=cv2.imencode(".bmp", MASK)[1].tobytes())
    return counts(2, train__anomalous=1), {"kos02/Part0_label.bmp": "kos02/Part0_label.bmp"}


def kolektor_sdd2(root):
    put(root, "train/10000.png", "train/10001.png", "test/20000.png", "test/20001.png")
    put(root, "train/10000_GT.png", "test/20000_GT.png", data=EMPTY)
    put(root, "train/10001_GT.png", "test/20001_GT.png", data=MARKED)
    return counts(1, 1, 1, train__anomalous=1), {"test/": "test", "train/10001_GT.png": "10001_GT.png"}


def dagm(root):
    for one in SETS["dagm"].categories:
        for part in ("Train", "Test"):
            put(root, f"{one}/{part}/0001.PNG", f"{one}/{part}/0002.PNG")
            put(root, f"{one}/{part}/Label/0002_label.PNG", data=MARKED)
    return counts(1, 1, 1, train__anomalous=1), {"Class3/Test/": "Test/Label", "Class10/Train/Label/": "Train/Label"}


def magnetic_tile(root):
    for kind in ("Blowhole", "Break", "Crack", "Fray", "Uneven", "Free"):
        put(root, f"MT_{kind}/Imgs/exp1_num_{len(kind)}.jpg", data=JPEG)
        put(root, f"MT_{kind}/Imgs/exp1_num_{len(kind)}.png", data=EMPTY if kind == "Free" else MARKED)
    return counts(1, train__anomalous=5), {"MT_Fray/": "MT_Fray/Imgs", "MT_Crack/Imgs/exp1_num_5.png": "exp1_num_5.png"}


def neu_det(root):
    put(root, "IMAGES/crazing_1.jpg", "IMAGES/rolled-in_scale_2.jpg", data=JPEG)
    put(root, "ANNOTATIONS/crazing_1.xml", "ANNOTATIONS/rolled-in_scale_2.xml", data=VOC)
    return counts(0, 0, 2), {"ANNOTATIONS/": "ANNOTATIONS", "ANNOTATIONS/crazing_1.xml": "crazing_1.xml"}


def deeppcb(root):
    for name, stem in (("trainval", "00041000"), ("test", "00041001")):
        base = "group00041/00041"
        put(root, f"PCBData/{base}/{stem}_temp.jpg", f"PCBData/{base}/{stem}_test.jpg", data=JPEG)
        put(root, f"PCBData/{base}_not/{stem}.txt", data="1 2 5 6 3\n0 0 2 2 1\n")
        put(root, f"PCBData/{name}.txt", data=f"{base}/{stem}.jpg {base}_not/{stem}.txt\n")
    removable = {"PCBData/test.txt": "test.txt", "PCBData/group00041/00041/00041000_temp.jpg": "00041000_temp.jpg"}
    return counts(1, 1, 1, train__anomalous=1), removable


def elpv(root):
    base = "src/elpv_dataset/data"
    lines = []
    for i, kind in enumerate(("mono", "poly")):
        for j, value in enumerate((0.0, 1.0, 0.3333333333333333)):
            put(root, f"{base}/images/cell{i}{j}.png")
            lines.append(f"images/cell{i}{j}.png  {value}    {kind}")
    put(root, f"{base}/labels.csv", data="\n".join(lines) + "\n")
    removable = {f"{base}/labels.csv": "labels.csv", f"{base}/images/cell11.png": "cell11.png"}
    return counts(1, train__anomalous=1, train__unknown=1), removable


def bsdata(root):
    names = [f"01_20082811001{i}_277500_315_crop_2" for i in range(3)]
    put(root, *(f"data/{name}.jpg" for name in names), data=JPEG)
    shape = {"label": "Pitting", "points": [[1, 1], [5, 1], [5, 5]]}
    put(root, *(f"label/{name}.json" for name in names[:2]), data=json.dumps({"shapes": [shape]}))
    rows = [
        {"filename": f"{name}.jpg", "train_test_split": split, "annotations": marks and f"{name}.json", "type": 2}
        for name, split, marks in zip(names, ("train", "test", None), (True, True, None), strict=True)
    ]
    put(root, "image_data.json", data=json.dumps({"images": rows}))
    return counts(1, 0, 1, train__anomalous=1), {
        "image_data.json": "image_data.json",
        f"label/{names[0]}.json": names[0],
    }


def wm811k(root):
    from inspection.wafer.wm811k import WaferMaps

    root.mkdir(parents=True, exist_ok=True)
    WaferMaps(
        cells=np.array([0, 1, 2, 1] * 4, np.uint8),
        shapes=np.array([[2, 2]] * 4),
        lots=np.array(["lot1", "lot1", "lot2", "lot3"]),
        wafers=np.arange(4),
        failures=np.array([0, 1, 0, -1]),
        splits=np.array([0, 1, 1, -1]),
    ).save(root / "wm811k.npz")
    return counts(1, 1, 1), {"wm811k.npz": "LSWMD.pkl"}


def mixedwm38(root):
    root.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((3, 8), np.int64)
    labels[1, 0], labels[2, [2, 7]] = 1, 1
    np.savez(root / "Wafer_Map_Datasets.npz", arr_0=np.full((3, 52, 52), 2), arr_1=labels)
    return counts(1, train__anomalous=2), {"Wafer_Map_Datasets.npz": "Wafer_Map_Datasets.npz"}


def bmad(root):
    for i, one in enumerate(SETS["bmad"].categories):
        masks, inner = i < 3, "img/" if i < 3 else ""
        put(root / one, f"train/good/{inner}0.png", *(f"{p}/good/{inner}0.png" for p in ("valid", "test")))
        put(root / one, *(f"{part}/Ungood/{inner}1.png" for part in ("valid", "test")))
        if masks:
            folder = "label" if i == 2 else "anomaly_mask"
            put(root / one, *(f"{part}/Ungood/{folder}/1.png" for part in ("valid", "test")), data=MARKED)
    removable = {"Chest/valid/Ungood/": "valid/Ungood", "Brain/test/Ungood/anomaly_mask/1.png": "1.png"}
    return counts(1, 1, 1, validation__normal=1, validation__anomalous=1), removable


def medianomaly(root):
    for one in ("RSNA", "VinCXR", "BrainTumor", "LAG"):
        put(root / one, *(f"images/{i}.png" for i in range(3)))
        lists = {"train": {"0": ["0.png"]}, "test": {"0": ["1.png"], "1": ["2.png"]}}
        put(root / one, "data.json", data=json.dumps(lists))
    for part, kinds in (("Training", ["NV"]), ("Test", ["NV", "MEL"])):
        stem = f"ISIC2018_Task3/ISIC2018_Task3_{part}"
        put(root, *(f"{stem}_Input/ISIC_{part}{kind}.jpg" for kind in kinds), data=JPEG)
        rows = [[f"ISIC_{part}{kind}", float(kind == "MEL"), float(kind == "NV")] for kind in kinds]
        table(root, f"{stem}_GroundTruth/ISIC2018_Task3_{part}_GroundTruth.csv", ["image", "MEL", "NV"], *rows)
    put(root / "Camelyon16", "train/good/0.png", "test/good/1.png", "test/Ungood/2.png")
    put(root / "BraTS2021", "train/0_flair_1.png", "test/normal/1_flair_1.png", "test/tumor/2_flair_1.png")
    put(root / "BraTS2021", "test/annotation/2_seg_1.png", data=MARKED)
    removable = {"LAG/data.json": "data.json", "BraTS2021/test/annotation/2_seg_1.png": "2_flair_1.png"}
    return counts(1, 1, 1), removable | {"Camelyon16/test/Ungood/": "test/Ungood"}


def medmnist(root):
    root.mkdir(parents=True, exist_ok=True)
    for one in SETS["medmnist"].categories:
        width = 14 if one == "chestmnist" else 1
        shape = (2, 4, 4, 4) if one.endswith("3d") else (2, 4, 4)
        parts = {f"{part}_images": np.zeros(shape, np.uint8) for part in ("train", "val", "test")}
        labels = {f"{part}_labels": np.arange(2)[:, None].repeat(width, 1) for part in ("train", "val", "test")}
        np.savez(root / f"{one}.npz", **parts, **labels)
    return None, {"octmnist.npz": "octmnist.npz"}


def nih_chestxray14(root):
    names = [f"0000000{i}_000.png" for i in range(3)]
    put(root, *(f"images_001/images/{name}" for name in names))
    findings = ["No Finding", "No Finding", "Mass|Nodule"]
    rows = [[name, finding, i] for i, (name, finding) in enumerate(zip(names, findings, strict=True))]
    table(root, "Data_Entry_2017.csv", ["Image Index", "Finding Labels", "Patient ID"], *rows)
    put(root, "train_val_list.txt", data=names[0])
    put(root, "test_list.txt", data="\n".join(names[1:]))
    table(
        root,
        "BBox_List_2017.csv",
        ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"],
        [names[2], "Mass", 1, 2, 3, 4],
    )
    return counts(1, 1, 1), {"test_list.txt": "test_list.txt", f"images_001/images/{names[1]}": names[1]}


def rsna_pneumonia(root):
    kinds = {"a": "Normal", "b": "Lung Opacity", "c": "No Lung Opacity / Not Normal"}
    for name in kinds:
        rsna_file(root / f"stage_2_train_images/{name}.dcm", x_ray((1, 2, 4, 6) if name == "b" else None))
    rsna_file(root / "stage_2_test_images/d.dcm", x_ray())
    table(root, "stage_2_detailed_class_info.csv", ["patientId", "class"], *kinds.items())
    rows = [["a", "", "", "", "", 0], ["b", 1, 2, 3, 4, 1], ["b", 3, 4, 1, 1, 1], ["c", "", "", "", "", 0]]
    table(root, "stage_2_train_labels.csv", ["patientId", "x", "y", "width", "height", "Target"], *rows)
    removable = {"stage_2_train_labels.csv": "labels.csv", "stage_2_train_images/b.dcm": "b.dcm"}
    return counts(1, train__anomalous=2, test__unknown=1), removable


def vindr_cxr(root):
    header = ["image_id", "rad_id", "class_name", "x_min", "y_min", "x_max", "y_max"]
    none = ["No finding", "", "", "", ""]
    found = ["Nodule/Mass", 1, 2, 5, 6]
    rows = [["a", "R1", *none], ["a", "R2", *none], ["b", "R1", *found], ["b", "R2", *found], ["c", "R1", *found]]
    table(root, "annotations/annotations_train.csv", header, *rows, ["c", "R2", *none])
    table(root, "annotations/annotations_test.csv", [header[0], *header[2:]], ["d", *none], ["e", *found])
    for name in ("train/a", "train/c", "test/d"):
        vindr_file(root / f"{name}.dicom", x_ray())
    vindr_file(root / "train/b.dicom", x_ray((1, 2, 5, 6)), "MONOCHROME1")
    vindr_file(root / "test/e.dicom", x_ray((1, 2, 5, 6)))
    removable = {"annotations/annotations_test.csv": "annotations_test.csv", "train/c.dicom": "c.dicom"}
    return counts(1, 1, 1, train__anomalous=1, train__unknown=1), removable


def kermany(root):
    for one, kinds in (("chest_xray", ["PNEUMONIA"]), ("OCT2017", ["CNV"])):
        for part in ("train", "test"):
            put(root / one, *(f"{part}/{kind}/person1_{kind}_2.jpeg" for kind in kinds), data=JPEG)
            put(root / one, f"{part}/NORMAL/NORMAL2-IM-0130-0001.jpeg", data=JPEG)
    for part in ("train", "test"):
        put(root / "OCT2017", f"{part}/DME/DME-1-1.jpeg", f"{part}/DRUSEN/DRUSEN-2-1.jpeg", data=JPEG)
    return None, {"OCT2017/test/DRUSEN/": "test/DRUSEN", "chest_xray/train/NORMAL/": "train/NORMAL"}


def chexpert(root):
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", *CHEXPERT_FINDINGS]
    empty = [""] * len(CHEXPERT_FINDINGS)

    def row(split, patient, view, none="", **marks):
        path = f"CheXpert-v1.0-small/{split}/{patient}/study1/view1_{view.lower()}.jpg"
        put(root, "/".join(path.split("/")[1:]), data=JPEG)
        findings = [marks.get(name, value) for name, value in zip(CHEXPERT_FINDINGS, empty, strict=True)]
        return [path, "M", 60, view, "AP", none, *findings]

    train = [row("train", "patient00001", "Frontal", "1.0"), row("train", "patient00002", "Frontal", Edema="1.0")]
    train += [row("train", "patient00003", "Frontal", Edema="-1.0"), row("train", "patient00001", "Lateral", "1.0")]
    table(root, "train.csv", header, *train)
    table(root, "valid.csv", header, row("valid", "patient64541", "Frontal", Fracture="1.0"))
    removable = {"valid.csv": "valid.csv", "train/patient00002/study1/view1_frontal.jpg": "patient00002"}
    return counts(1, train__anomalous=1, train__unknown=1, validation__anomalous=1), removable


def ixi(root):
    for one in SETS["ixi"].categories:
        for name, axes in (("IXI002-Guys-0828", "PSR"), ("IXI012-HH-1211", "RAS")):
            nifti(root / f"IXI-{one}/{name}-{one}.nii.gz", brain(), axes)
    return counts(2), {"IXI-PD/": "IXI*-PD.nii.gz"}


def brats(root):
    brats_case(root, 0)
    brats_case(root, 1, known=False)
    removable = {"BraTS2021_00001/BraTS2021_00001_t1ce.nii.gz": "00001_t1ce.nii.gz"}
    return counts(0, train__anomalous=1, validation__unknown=1), removable


MAKERS = {
    "mvtec_ad": mvtec("mvtec_ad"),
    "mvtec_ad_2": mvtec_ad_2,
    "mvtec_loco": mvtec("mvtec_loco", mask="{}/000.png", extra=["validation/good/000.png"]),
    "btad": mvtec("btad", good="ok", mask="{}.bmp"),
    "mpdd": mvtec("mpdd"),
    "visa": visa,
    "real_iad": real_iad,
    "kolektor_sdd": kolektor_sdd,
    "kolektor_sdd2": kolektor_sdd2,
    "dagm": dagm,
    "magnetic_tile": magnetic_tile,
    "neu_det": neu_det,
    "deeppcb": deeppcb,
    "elpv": elpv,
    "bsdata": bsdata,
    "wm811k": wm811k,
    "mixedwm38": mixedwm38,
    "bmad": bmad,
    "medianomaly": medianomaly,
    "medmnist": medmnist,
    "nih_chestxray14": nih_chestxray14,
    "rsna_pneumonia": rsna_pneumonia,
    "vindr_cxr": vindr_cxr,
    "kermany": kermany,
    "chexpert": chexpert,
    "ixi": ixi,
    "brats": brats,
}


@pytest.fixture
def make():
    """Writes the tiny tree of a set; returns what a loader must count and what may be removed."""
    return lambda name, root: MAKERS[name](root)


@pytest.fixture
def marked():
    """The pixels that the masks of the trees mark, (8, 8) bool."""
    return MASK > 0
