"""The section `[line]` of a recipe: how fast a part must be judged and what happens where that does not succeed.

What was not judged is never OK. These settings only choose between NG and REVIEW, and how long to wait for what.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from anomaly.calibration import Decision
from anomaly.errors import SettingError
from anomaly.settings_file import Section

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10_000)]


class LineSettings(Section):
    """How the line runs.

    Attributes:
        deadline_ms: milliseconds from the capture of a part until its result is durable; later ones are counted as
            missed deadlines, their decision stays.
        part_timeout_ms: milliseconds after which a part that has not been judged is reported as TIMEOUT; whatever the
            inspection says later is discarded. They count from the capture of the part; where the source waits
            (on_overload = "block") from the start of its inspection, and while an inspection hangs for the parts in
            the queue too.
        queue: most parts that wait for the inspection.
        batch: most parts that are judged together.
        batch_wait_ms: milliseconds that a part waits for others to be judged with it.
        on_overload: what happens to a part that does not fit into the queue: "block" makes the source wait, "review"
            and "ng" report the part at once, unjudged.
        on_unjudged: decision of parts that could not be judged.
        watchdog_s: seconds without a part from the source after which an alarm is raised.
        report_retry_s: seconds for which failed reporting is tried again before the line stops with an error.
        stop_s: seconds that a stop waits for parts in flight before they are reported as STOPPED.
    """

    deadline_ms: Positive = 1000.0
    part_timeout_ms: Positive = 10_000.0
    queue: Count = 32
    batch: Count = 4
    batch_wait_ms: NotNegative = 5.0
    on_overload: Literal["block", "review", "ng"] = "block"
    on_unjudged: Literal["NG", "REVIEW"] = "NG"
    watchdog_s: Positive = 30.0
    report_retry_s: NotNegative = 30.0
    stop_s: NotNegative = 10.0

    @model_validator(mode="after")
    def _checked(self) -> "LineSettings":
        if self.batch > self.queue:
            raise SettingError.of("LineSettings", "batch", f"at most queue, {self.queue}", self.batch)
        if self.batch_wait_ms >= self.deadline_ms:
            raise SettingError.of(
                "LineSettings", "batch_wait_ms", f"below deadline_ms, {self.deadline_ms}", self.batch_wait_ms
            )
        return self

    @property
    def unjudged(self) -> Decision:
        """The decision of parts that could not be judged."""
        return Decision(self.on_unjudged)

    @property
    def overloaded(self) -> Decision | None:
        """The decision of parts that do not fit into the queue; None where the source waits instead."""
        return None if self.on_overload == "block" else Decision(self.on_overload.upper())
