"""A run of triage: outcomes as they come -> DICOM results; maps are let go as soon as they are written."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from medical.model import TriageModel
from medical.outcome import Outcome
from medical.pseudonyms import Pseudonyms


@dataclass
class Run:
    """What a run has made so far.

    Attributes:
        out: its folder.
        model: the model.
        pseudonyms: make names of files.
        dicom: whether results are written as DICOM, into `out`/dicom.
        with_heatmaps: whether regions are marked.
        outcomes: in the order of arrival, without their maps.
        objects: number of DICOM results written.
    """

    out: Path
    model: TriageModel
    pseudonyms: Pseudonyms
    dicom: bool
    with_heatmaps: bool
    outcomes: list[Outcome] = field(default_factory=list)
    objects: int = 0

    def add(self, outcome: Outcome) -> None:
        """Takes the outcome of a study and writes its results.

        Raises:
            ResultError: a result cannot be written.
        """
        if self.dicom:
            from medical.results import ResultSettings, write_results

            settings = ResultSettings(with_heatmaps=self.with_heatmaps)
            written = write_results(outcome, self.model.algorithm(), self.out / "dicom", settings, self.pseudonyms)
            self.objects += len(written)
        light = tuple(replace(one, map=None) for one in outcome.analysed)
        self.outcomes.append(replace(outcome, analysed=light))
