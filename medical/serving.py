"""What the PACS service runs: one model that judges one study after the other and writes DICOM results."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medical.commands.shared import site_pseudonyms
from medical.model import TriageModel
from medical.objects import Study
from medical.pacs.analysis import AnalysisResult
from medical.reading import Inventory, PixelReader, take_inventory
from medical.refusals import Reason, RefusedError
from medical.results import ResultSettings, write_results
from medical.triage import Triage
from medical.units import summed_up


class ServedModel:
    """An `Analyser` of `medical.pacs`; the model and the decoding process stay loaded from study to study."""

    def __init__(self, model: TriageModel, with_heatmaps: bool) -> None:
        """Keeps the model and starts the decoding process."""
        self._model = model
        self._settings = ResultSettings(with_heatmaps=with_heatmaps)
        self._pseudonyms = site_pseudonyms()
        self._pixels = PixelReader().__enter__()

    def close(self) -> None:
        """Ends the decoding process, which otherwise ends with this one."""
        self._pixels.__exit__(None, None, None)

    def analyse(self, files: Sequence[Path], out: Path) -> AnalysisResult:
        """Judges the objects of one study and writes the results; see `Analyser`.

        Raises:
            RefusedError: the files are not of one study, or none says of which it is.
            ResultError: the results cannot be written.
        """
        with take_inventory(files, self._pseudonyms, pixels=self._pixels) as inventory:
            if not inventory.studies:  # no DICOM result could say whose it is: the queue says not_analysed, and why
                why = summed_up(inventory.refused)
                raise RefusedError(why.reason, why.detail)
            if len(inventory.studies) != 1:
                words = (
                    f"{len(files)} objects belong to {len(inventory.studies)} studies; one study is analysed at a time"
                )
                raise RefusedError(Reason.HEADER, words)
            triage = Triage(self._model, self._pixels, self._pseudonyms, keep_maps=self._settings.with_heatmaps)
            (outcome,) = triage.outcomes([_with_all(inventory)])
            written = write_results(outcome, self._model.algorithm(), out, self._settings, self._pseudonyms)
        if outcome.refusal is not None:
            summary = str(outcome.refusal)
        else:
            summary = f"{'flagged' if outcome.flagged else 'not flagged'}, {len(outcome.analysed)} analysed"
        return AnalysisResult(outcome.status, tuple(one.path for one in written), summary)


def _with_all(inventory: Inventory) -> Study:
    """The one study, with the files that do not say of which study they are: the service gives those of one only."""
    (study,) = inventory.studies
    lost = (replace(one, study=study.uid) for one in inventory.refused)
    return replace(study, refused=(*study.refused, *lost))


def analyser(model: str, with_heatmaps: bool = False) -> ServedModel:
    """Loads a model for the service.

    Args:
        model: file that `anomaly triage fit` wrote.
        with_heatmaps: whether results mark regions.

    Raises:
        ArtifactError: it is no triage model.
    """
    return ServedModel(TriageModel.load(Path(model)), with_heatmaps)
