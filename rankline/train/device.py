"""What training computes on: the device, its precision, and compiled networks."""

from __future__ import annotations

import torch

from rankline.errors import DeviceError
from rankline.io.files import first_line


def pick_device(name: str) -> torch.device:
    """The device that a setting names: `cpu`, `cuda`, or `auto` (CUDA where it is available).

    Raises:
        DeviceError: CUDA is asked for and not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "CUDA is not available",
            expected="a CUDA device that torch can see",
            found=f"none (torch {torch.__version__})",
            hint="set device=auto or device=cpu, or run on a machine with a GPU",
        )
    return torch.device(name)


def gpu_count() -> int:
    """The number of GPUs that torch sees on this machine."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def pick_autocast(precision: str, device: torch.device) -> bool:
    """Whether the encoder runs in bf16: `auto` picks it where the hardware computes in it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def compile_modules(*modules: torch.nn.Module) -> str:
    """Compile networks in place where this machine can; `yes`, or `no` and the reason."""
    try:
        torch.compile(lambda x: x * 2)(torch.ones(2))
    except Exception as error:  # no compiler, no headers, an unsupported platform: many types
        return f"no: {first_line(error)}"
    for module in modules:
        module.compile(dynamic=True)
    return "yes"
