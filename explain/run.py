"""The whole job: files -> scores -> explanations of what was flagged with all their figures, part by part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from anomaly.artifact import Artifact
from anomaly.calibration import Decision
from anomaly.errors import DatasetError, ImageFileError
from anomaly.images import ImageLoader, read_mask
from anomaly.images.files import images_below
from anomaly.progress import Progress, silent
from anomaly.scoring import judge, score_files
from explain.methods import Method
from explain.nearest import PatchSearch
from explain.part import Explainer, Judged, Part
from explain.subject import Subject
from explain.twin import MOST_BASELINES, Normals, make_twin
from explain.view import plain_view


@dataclass
class FileExplainer:
    """Explains files with one model.

    Attributes:
        artifact: the model.
        methods: what to explain with; controls are added.
        normals: normal images; None where there are none.
        masks: folder with masks of known defects; None without.
        seed: seed of methods that draw samples.
        failures: files that could not be used.
    """

    artifact: Artifact
    methods: Sequence[Method]
    normals: Normals | None = None
    masks: Path | None = None
    seed: int = 0
    failures: list[ImageFileError] = field(default_factory=list)

    def judged(self, files: Sequence[Path], progress: Progress = silent) -> list[Judged]:
        """Scores files; the highest score first."""
        advance = progress("scoring", len(files))
        found = []
        for scored in score_files(self.artifact.scorer, files, self.failures):
            found.append(Judged(str(scored.path), scored.score, judge(self.artifact, scored.score)))
            advance(1)
        return sorted(found, key=lambda one: (-one.score, one.name))

    def explained(self, chosen: Sequence[Judged], progress: Progress = silent) -> Iterator[Part]:
        """Explains parts in order; a file that has become unreadable or whose mask does not fit is a failure."""
        scorer = self.artifact.scorer
        search = PatchSearch.of(scorer, self.normals)
        explainer = Explainer(self.artifact, self.methods, self.seed)
        advance = progress("explaining", len(chosen) * explainer.steps)
        finder = MaskFinder(self.masks) if self.masks else None
        for one in chosen:
            path = Path(one.name)
            loader = ImageLoader([path], scorer.input, 1)
            frames = [batch.images[0] for batch in loader]
            if not frames:
                self.failures.extend(loader.failures)
                advance(explainer.steps)
                continue
            image = frames[0]
            try:
                mask = finder.find(path, image.shape[-2], image.shape[-1]) if finder else None
            except ImageFileError as error:
                self.failures.append(error)
                mask = None
            twin = make_twin(scorer, image, self.normals)
            more = self.normals.resized(*image.shape[-2:])[:MOST_BASELINES] if self.normals else None
            subject = Subject.of(scorer, image, twin, more, self.seed)
            nearest = search.nearest(subject) if search else None
            frame, values = image.permute(1, 2, 0).numpy(), scorer.input.value_range
            view = plain_view(frame, values, one.score, one.verdict, twin, nearest, self.normals)
            yield explainer.part(one, image, subject, view, nearest=nearest, mask=mask, advance=advance)


def choose(judged: Sequence[Judged], most: int, everything: bool) -> list[Judged]:
    """Returns what to explain: what is not OK, or everything, the highest scores first, at most `most`."""
    return [one for one in judged if everything or one.verdict.decision != Decision.OK][:most]


class MaskFinder:
    """Finds the mask of an image: FOLDER/KIND/STEM_mask.png, FOLDER/STEM_mask.png, or the same without "_mask"."""

    def __init__(self, folder: Path) -> None:
        """Lists the folder.

        Raises:
            DatasetError: it holds no image.
        """
        files = images_below(folder) if folder.is_dir() else []
        if not files:
            raise DatasetError(f"{folder} holds no mask")
        self._files = {(file.parent.name if file.parent != folder else "", file.stem): file for file in files}

    def find(self, path: Path, height: int, width: int) -> Bool[np.ndarray, "h w"] | None:
        """Returns the mask of an image; None where there is none.

        Raises:
            ImageFileError: the mask cannot be read or has another size.
        """
        for kind in (path.parent.name, ""):
            for stem in (f"{path.stem}_mask", path.stem):
                if (kind, stem) in self._files:
                    return read_mask(self._files[kind, stem], height, width)
        return None
