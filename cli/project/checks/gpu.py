"""The GPU, as the driver, torch and ONNX Runtime each report it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

from cli.project.checks.libraries import installed
from cli.project.checks.model import Check, CheckContext, Finding
from pipelines.steps import STEPS


def gpu(context: CheckContext) -> Iterator[Finding]:
    """The three agree with each other and with what the recipe asks for."""
    driver = _driver_gpus()
    torch_has_gpu, torch_message = _torch_device()
    session_has_gpu, session_message = _session_device()
    wanted = [name for name, row in STEPS.items() if row.trains and getattr(context.recipe, name).device == "cuda"]
    if wanted and not torch_has_gpu:
        hint = f"--set {wanted[0]}.device=auto, or install a CUDA build of torch on a machine with a GPU"
        yield Finding("torch", "fail", f"{', '.join(wanted)} ask for cuda; {torch_message}", hint)
    elif driver and not torch_has_gpu and installed("torch"):
        hint = "pip install a CUDA build of the same torch version"
        yield Finding("torch", "warn", f"{torch_message}, but the driver has {driver}", hint)
    else:
        yield Finding("torch", "ok", torch_message)
    if driver and not session_has_gpu and installed("onnxruntime-gpu"):
        hint = "install the CUDA 12 and cuDNN 9 libraries that onnxruntime-gpu needs, or serve with --provider cpu"
        yield Finding("onnxruntime's device", "warn", f"{session_message}, but the driver has {driver}", hint)
    else:
        yield Finding("onnxruntime's device", "ok", session_message)


def _driver_gpus() -> str:
    """The GPUs of the driver; empty for none."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return ""
    result = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20)
    lines = [line.split("(")[0].strip() for line in result.stdout.splitlines() if line.startswith("GPU")]
    return ", ".join(lines) if result.returncode == 0 else ""


def _torch_device() -> tuple[bool, str]:
    """Whether torch has a GPU, and a description of its build."""
    version = installed("torch")
    if version is None:
        return False, "torch is not installed here"
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if not torch.cuda.is_available():
        return False, f"torch {version} ({build} build) finds no GPU: training runs on the CPU"
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return True, f"torch {version} ({build} build) finds {', '.join(names)}"


def _session_device() -> tuple[bool, str]:
    """Whether a session of ONNX Runtime really runs on CUDA; its list of providers does not tell."""
    from rankline.errors import DeviceError
    from serving.sessions import require_provider

    if installed("onnxruntime-gpu") is None and installed("onnxruntime") is None:
        return False, "ONNX Runtime is not installed here"
    try:
        require_provider("cuda")
    except DeviceError as error:
        return False, f"a session that asks for CUDA runs on {error.found}: serving runs on the CPU"
    return True, "a session that asks for CUDA runs on CUDA"


CHECKS: tuple[Check, ...] = (gpu,)
