"""ONNX Runtime sessions: one graph on one device, and the truth about which device that is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rankline.errors import DeviceError, IntegrityError

Provider = Literal["cpu", "cuda"]
Array = npt.NDArray[Any]

_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}


def require_provider(provider: Provider) -> None:
    """Refuse a device that is not there, before anything else is loaded.

    Raises:
        DeviceError: ``cuda`` was asked for and a session falls back to the CPU.
    """
    from onnxruntime.datasets import get_example

    if provider != "cpu":
        Graph(Path(get_example("sigmoid.onnx")), provider=provider, threads=1)


class Graph:
    """One ONNX graph with one output, ready to run; safe to call from several threads."""

    def __init__(self, path: Path, *, provider: Provider, threads: int) -> None:
        import onnxruntime as ort

        # a missing CUDA library is told in our own words below, not in the runtime's log
        ort.set_default_logger_severity(4)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(str(path), options, providers=_PROVIDERS[provider])
        except Exception as error:  # the runtime's own exceptions share no base class
            raise IntegrityError(
                f"{path.name} cannot be loaded by ONNX Runtime {ort.__version__}",
                expected="a graph this version runs",
                found=str(error).splitlines()[0],
                where=str(path),
                hint="export the model again with this version of Rankline",
            ) from error
        # the list of *available* providers names CUDA even where none is; the session's own tells the truth
        active = self._session.get_providers()
        if active[0] != _PROVIDERS[provider][0]:
            raise DeviceError(
                "CUDA was asked for and ONNX Runtime fell back to the CPU",
                expected=_PROVIDERS[provider][0],
                found=", ".join(active),
                hint="check `nvidia-smi` and the CUDA 13 libraries, or start with --provider cpu",
            )
        self.inputs = [entry.name for entry in self._session.get_inputs()]
        self._output = self._session.get_outputs()[0].name
        self._bound = provider == "cuda"

    def __call__(self, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """The graph's output for ``feeds``, as float32."""
        output = self.run_bound(feeds) if self._bound else self._session.run([self._output], dict(feeds))[0]
        return np.asarray(output, np.float32)

    def run_bound(self, feeds: Mapping[str, Array]) -> Array:
        """The same through IO binding: each input is copied to the device once, the output back once."""
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        binding.bind_output(self._output, "cpu")
        self._session.run_with_iobinding(binding)
        output: Array = binding.copy_outputs_to_cpu()[0]
        return output
