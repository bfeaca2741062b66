"""What is scored as one, a single image or a volume, read study by study, ahead of the model that scores it."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from medical.contract import Contract
from medical.objects import Image, Instance, RefusedFile, Series, Study, Volume, in_words, kinds_of
from medical.privacy.log_fields import Event
from medical.privacy.logs import log
from medical.refusals import Reason, Refusal, RefusedError

Read = Image | Volume | RefusedFile
"""A unit that was read, or an object that was not."""


class Pixels(Protocol):
    """What decodes pixels: `medical.reading.PixelReader` for DICOM, `medical.pictures.PictureReader` for pictures."""

    def image(self, instance: Instance, frame: int = 1) -> Image:
        """Decodes one frame, or raises RefusedError."""

    def volume(self, series: Series) -> Volume:
        """Decodes a regular series, or raises RefusedError."""


def read_units(study: Study, contract: Contract, pixels: Pixels) -> Iterator[Read]:
    """Reads the units of a study that the model may be asked about, and says of all other objects why they are not."""
    yield from study.refused
    for series in study.series:
        yield from (_images if contract.geometry == "image" else _volume)(series, contract, pixels)


def read_ahead(studies: Iterable[Study], contract: Contract, pixels: Pixels) -> Iterator[tuple[Study, list[Read]]]:
    """Yields each study with all that was read of it, while the next one is being read in a thread.

    Two studies are held at a time. A consumer that stops early ends the thread.
    """

    def read(study: Study) -> tuple[Study, list[Read]]:
        return study, list(read_units(study, contract, pixels))

    with ThreadPoolExecutor(1, thread_name_prefix="anomaly-studies") as pool:
        waiting = None
        for study in studies:
            following = pool.submit(read, study)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def _images(series: Series, contract: Contract, pixels: Pixels) -> Iterator[Read]:
    for instance in series.instances:
        refusal = contract.refusal_of(instance)
        for frame in range(1, instance.frames + 1):
            if refusal is None:
                yield _checked(instance, contract, lambda i=instance, f=frame: pixels.image(i, f))
        if refusal is not None:
            yield RefusedFile(instance.path, refusal, instance.study)


def _volume(series: Series, contract: Contract, pixels: Pixels) -> Iterator[Read]:
    """A volume is refused as a whole: with a slice left out it would be another volume."""
    refusals = [contract.refusal_of(instance) for instance in series.instances]
    refusal = next((found for found in refusals if found is not None), series.irregular)
    found: Read | None = None
    if refusal is None:
        found = _checked(series.instances[0], contract, lambda: pixels.volume(series))
        refusal = found.refusal if isinstance(found, RefusedFile) else None
    if refusal is None:
        assert found is not None
        yield found
        return
    yield from (RefusedFile(instance.path, refusal, instance.study) for instance in series.instances)


def _checked(instance: Instance, contract: Contract, read: "Reading") -> Read:
    try:
        found = read()
        refusal = contract.refusal_of_pixels(found)
    except RefusedError as error:
        refusal = error.refusal
    except Exception as error:  # memory, the decoding process, ...: one object must not stop the other studies
        log(Event.FAILED, error=error)
        refusal = Refusal(Reason.FAILED, f"reading failed ({type(error).__name__})")
    return found if refusal is None else RefusedFile(instance.path, refusal, instance.study)


class Reading(Protocol):
    """Reads one unit."""

    def __call__(self) -> Image | Volume:
        """Returns it, or raises RefusedError."""


def instances_of(found: Image | Volume) -> tuple[Instance, ...]:
    """Returns the objects that a unit was read from."""
    return (found.instance,) if isinstance(found, Image) else found.instances


def one_for_each(refused: Iterable[RefusedFile]) -> list[RefusedFile]:
    """Returns one entry for each object, its first; of several frames that were refused it says how many."""
    frames: dict[Path, list[RefusedFile]] = {}
    for one in refused:
        frames.setdefault(one.path, []).append(one)
    return [_of_frames(some) for some in frames.values()]


def _of_frames(some: list[RefusedFile]) -> RefusedFile:
    first = some[0]
    if len(some) == 1:
        return first
    return replace(first, refusal=replace(first.refusal, detail=f"{first.refusal.detail} ({len(some)} frames)"))


def summed_up(refused: Iterable[RefusedFile]) -> Refusal:
    """Returns why a study was not analysed, from why its objects were not: one reason, or a count of each.

    Objects that are no images, or results, are the reason only where there is nothing else.
    """
    everything = list(refused)
    listed = [one for one in everything if one.refusal.of_image]
    if not everything:
        return Refusal(Reason.NOTHING_TO_ANALYSE, "the study holds no object")
    if not listed:
        return Refusal(Reason.NO_IMAGE, f"the study holds no image; it holds {in_words(kinds_of(everything))}")
    counts: dict[Reason, int] = {}
    for one in listed:
        counts[one.refusal.reason] = counts.get(one.refusal.reason, 0) + 1
    if len(counts) == 1:
        more = f" ({len(listed)} objects)" if len(listed) > 1 else ""
        return Refusal(listed[0].refusal.reason, f"{listed[0].refusal.detail}{more}")
    shown = ", ".join(f"{n} x {reason}" for reason, n in sorted(counts.items(), key=lambda item: -item[1]))
    return Refusal(Reason.NOTHING_TO_ANALYSE, f"none of {len(listed)} objects can be analysed: {shown}")
