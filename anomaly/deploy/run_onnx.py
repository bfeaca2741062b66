"""ONNX Runtime on the CPU, with CUDA, or with its TensorRT provider. Needs numpy and onnxruntime alone."""

from pathlib import Path
from typing import Any

from anomaly.deploy.manifest import INPUT, OUTPUTS, Frames, Manifest
from anomaly.deploy.runtime import Runtime, Scores, named
from anomaly.errors import ArtifactError, DeviceError, MissingExtraError, SettingError, UnknownNameError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class OnnxRuntime(Runtime):
    """A session of ONNX Runtime. On a GPU inputs and outputs are bound, so that each is copied once."""

    def __init__(self, manifest: Manifest, session: Any, device_id: int | None) -> None:
        """Keeps an open session; `device_id` is the GPU, or None on the CPU."""
        super().__init__(manifest, session.get_providers()[0])
        self._session = session
        self._device_id = device_id

    @classmethod
    def open(cls, path: Path, device: str, provider: str | None, threads: int | None) -> "OnnxRuntime":
        """Opens a file with the provider that was asked for, and makes sure that this one runs it. See `load`."""
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(
                "scoring with an .onnx file needs ONNX Runtime: pip install onnxruntime (or onnxruntime-gpu)"
            ) from error
        kind, _, number = device.partition(":")
        if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
            raise SettingError.of("load", "device", "'cpu', 'cuda' or 'cuda:N' for an .onnx file", device)
        provider = provider or kind
        if provider not in PROVIDERS:
            raise UnknownNameError.among("provider", provider, PROVIDERS)
        if (provider == "cpu") != (kind == "cpu"):
            allowed = "'cpu' on device 'cpu', 'cuda' or 'tensorrt' on device 'cuda'"
            raise SettingError.of("load", "provider", allowed, f"{provider}' on '{device}")
        wanted = PROVIDERS[provider]
        if wanted not in onnxruntime.get_available_providers():
            raise DeviceError(
                f"this ONNX Runtime has no {wanted}, only {', '.join(onnxruntime.get_available_providers())}: "
                "pip install onnxruntime-gpu in place of onnxruntime"
            )
        device_id = None if kind == "cpu" else int(number or 0)
        session = _session(onnxruntime, path, _providers(provider, device_id), threads)
        running = session.get_providers()
        if running[0] != wanted:  # it falls back to another provider with a line in its log, nothing else
            raise DeviceError(
                f"{wanted} cannot run {path} here, {running[0]} would: check driver, CUDA and TensorRT libraries, "
                f"or ask for provider {_name(running[0])!r}"
            )
        named([output.name for output in session.get_outputs()], path)
        manifest = Manifest.from_metadata(session.get_modelmeta().custom_metadata_map, path)
        return cls(manifest, session, device_id)

    def run(self, batch: Frames) -> Scores:
        """Runs the session, which any number of threads may do at once."""
        if self._device_id is None:
            return Scores.of(self._session.run(OUTPUTS, {INPUT: batch}))
        from onnxruntime import OrtValue

        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT, OrtValue.ortvalue_from_numpy(batch, "cuda", self._device_id))
        for name in OUTPUTS:
            binding.bind_output(name, "cuda", self._device_id)
        self._session.run_with_iobinding(binding)
        return Scores.of(binding.copy_outputs_to_cpu())


def _session(onnxruntime: Any, path: Path, providers: list[Any], threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1  # the graph is a chain: nothing to run side by side
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise ArtifactError(f"ONNX Runtime cannot open {path}: {error}") from error


def _providers(provider: str, device_id: int | None) -> list[Any]:
    """Returns the provider that was asked for and those that may take what it does not support."""
    if provider == "cpu":
        return [PROVIDERS["cpu"]]
    cuda = (PROVIDERS["cuda"], {"device_id": device_id})
    if provider == "cuda":
        return [cuda, PROVIDERS["cpu"]]
    return [(PROVIDERS["tensorrt"], {"device_id": device_id}), cuda, PROVIDERS["cpu"]]


def _name(provider: str) -> str:
    return next((name for name, full in PROVIDERS.items() if full == provider), provider)
