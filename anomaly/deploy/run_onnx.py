"""ONNX Runtime on the CPU, with CUDA, or with its TensorRT provider. Needs numpy and onnxruntime alone."""

import hashlib
from pathlib import Path
from typing import Any

from anomaly.deploy.engines import cache_folder
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
        providers = _providers(provider, device_id)
        if provider == "tensorrt":
            providers[0][1].update(_engine_options(onnxruntime, path))
        session = _session(onnxruntime, path, providers, threads)
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


def _engine_options(onnxruntime: Any, path: Path) -> dict[str, Any]:
    """Returns the options of the TensorRT provider: shapes that never change, engines kept in the cache.

    An engine is built at load, which takes minutes; ONNX Runtime names it after the graph and the GPU, the folder adds
    the file and the version. CUDA graphs stay off: the provider wants inputs at one address for ever.

    Raises:
        SettingError: the file is in int8 as CPUs take it.
    """
    manifest = Manifest.from_metadata(_metadata(onnxruntime, path), path)
    if manifest.precision == "int8":
        raise SettingError(
            f"{path} is in int8 with zero points, which TensorRT does not take: use an fp16 export, or provider 'cuda'"
        )
    version = f"onnxruntime-{onnxruntime.__version__}"
    folder = str(cache_folder() / f"{version}-{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}")
    options: dict[str, Any] = {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": folder,
        "trt_fp16_enable": manifest.precision == "fp16",
    }
    fewest, most = manifest.frame.batch
    if fewest < most:
        for name, count in (("min", fewest), ("opt", most), ("max", most)):
            shape = "x".join(str(side) for side in manifest.frame.shape(count))
            options[f"trt_profile_{name}_shapes"] = f"{INPUT}:{shape}"
    return options


def _metadata(onnxruntime: Any, path: Path) -> Any:
    """Returns the metadata of a file, opened on the CPU without any optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[PROVIDERS["cpu"]])
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise ArtifactError(f"ONNX Runtime cannot open {path}: {error}") from error
    return session.get_modelmeta().custom_metadata_map


def _name(provider: str) -> str:
    return next((name for name, full in PROVIDERS.items() if full == provider), provider)
