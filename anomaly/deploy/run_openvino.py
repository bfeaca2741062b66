"""OpenVINO on Intel CPUs, GPUs and NPUs and on other x86 and ARM CPUs. Needs numpy and openvino alone."""

import threading
from pathlib import Path
from typing import Any

from anomaly.deploy.manifest import INPUT, OUTPUTS, Frames, Manifest
from anomaly.deploy.runtime import Runtime, Scores, named
from anomaly.errors import ArtifactError, DeviceError, MissingExtraError, SettingError

PLACE = "anomaly"
"""Where the metadata of an export lie in the rt_info of an IR."""


class OpenVinoRuntime(Runtime):
    """A compiled model of OpenVINO with one infer request per thread."""

    def __init__(self, manifest: Manifest, compiled: Any) -> None:
        """Keeps a compiled model."""
        super().__init__(manifest, ",".join(compiled.get_property("EXECUTION_DEVICES")))
        self._compiled = compiled
        self._own = threading.local()

    @classmethod
    def open(cls, path: Path, device: str, provider: str | None, threads: int | None) -> "OpenVinoRuntime":
        """Reads and compiles an IR for a device. See `load`."""
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError.of("openvino", "openvino", "scoring with an .xml file") from error
        if provider is not None:
            raise SettingError.of("load", "provider", "None for an .xml file; its `device` says it all", provider)
        core = openvino.Core()
        wanted = device.upper()
        devices = core.available_devices
        if wanted != "AUTO" and wanted.partition(".")[0] not in {name.partition(".")[0] for name in devices}:
            raise DeviceError(f"OpenVINO finds no device {wanted} here, only {', '.join(devices)} (or auto)")
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise ArtifactError(f"OpenVINO cannot open {path}: {error}") from error
        named([output.get_any_name() for output in model.outputs], path)
        manifest = Manifest.from_metadata(_metadata(model), path)
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        if wanted == "CPU":
            settings["INFERENCE_PRECISION_HINT"] = "f32"  # the parity that the file states was measured in it
        try:
            return cls(manifest, core.compile_model(model, wanted, settings))
        except RuntimeError as error:
            raise DeviceError(f"OpenVINO cannot run {path} on {wanted}: {error}") from error

    def run(self, batch: Frames) -> Scores:
        """Runs the request of the calling thread; the input is not copied, the outputs are."""
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        results = request.infer({INPUT: batch}, share_inputs=True)
        return Scores.of([results[name] for name in OUTPUTS])


def _metadata(model: Any) -> dict[str, str]:
    """Returns the entries that `anomaly export` wrote."""
    if not model.has_rt_info(PLACE):
        return {}
    return {name: str(value) for name, value in model.get_rt_info(PLACE).value.items()}
