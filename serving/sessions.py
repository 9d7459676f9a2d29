"""ONNX Runtime sessions, on the CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rankline.errors import DeviceError, IntegrityError
from rankline.io.files import first_line
from rankline.runtime.lazy_imports import import_onnxruntime

Provider = Literal["cpu", "cuda"]
Array = npt.NDArray[Any]

_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}


def require_provider(provider: Provider) -> None:
    """Refuse an unavailable device before anything else is loaded.

    Raises:
        DeviceError: ``cuda`` was requested and a session falls back to the CPU.
    """
    if provider != "cpu":
        import_onnxruntime()
        from onnxruntime.datasets import get_example

        Graph(Path(get_example("sigmoid.onnx")), provider=provider, threads=1)


class Graph:
    """An ONNX graph with one output; safe to call from several threads."""

    def __init__(self, path: Path, *, provider: Provider, threads: int) -> None:
        ort = import_onnxruntime()
        # a missing CUDA library is reported by the error below, not in the runtime's log
        ort.set_default_logger_severity(4)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle server uses no processor
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(str(path), options, providers=_PROVIDERS[provider])
        except Exception as error:  # the runtime's exceptions share no base class
            raise IntegrityError(
                f"{path.name} cannot be loaded by ONNX Runtime {ort.__version__}",
                expected="a graph that this version can run",
                found=first_line(error),
                where=str(path),
                hint="export the model again with this version of Rankline",
            ) from error
        # the list of *available* providers contains CUDA even without a device; a session's providers are real
        active = self._session.get_providers()
        if active[0] != _PROVIDERS[provider][0]:
            raise DeviceError(
                "CUDA was requested and ONNX Runtime fell back to the CPU",
                expected=_PROVIDERS[provider][0],
                found=", ".join(active),
                hint="check `nvidia-smi` and the CUDA 13 libraries, or start with --provider cpu",
            )
        self.inputs = [entry.name for entry in self._session.get_inputs()]
        self._output = self._session.get_outputs()[0].name
        self._bound = provider == "cuda"

    def __call__(self, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """Run the graph; the output is float32."""
        output = self.run_bound(feeds) if self._bound else self._session.run([self._output], dict(feeds))[0]
        return np.asarray(output, np.float32)

    def run_bound(self, feeds: Mapping[str, Array]) -> Array:
        """Run the graph with IO binding: each input is copied to the device once, the output back once."""
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        binding.bind_output(self._output, "cpu")
        self._session.run_with_iobinding(binding)
        output: Array = binding.copy_outputs_to_cpu()[0]
        return output
