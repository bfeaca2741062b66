"""The device that observes (PS3.16 TID 1002, TID 1004): the model, with its hash as serial number."""

from typing import Any

from medical.results.codes import DEVICE
from medical.results.stamp import Stamp
from medical.vocabulary import OURS


def observer(stamp: Stamp) -> Any:
    """Returns the observer context of a report or a key object selection."""
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext

    return ObserverContext(
        observer_type=DEVICE.concept(),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=stamp.device,
            name=OURS,
            manufacturer_name=OURS,
            model_name=stamp.algorithm.name,
            serial_number=stamp.algorithm.model,
        ),
    )
