"""What runs the network: torch, ONNX Runtime or OpenVINO behind one call, on one thread of the processor or on a GPU.

``auto`` takes a CUDA device where torch sees one, else OpenVINO, else ONNX Runtime, else torch, whichever is installed.
So it does for a query, which is a few windows, less than it takes to try what is fastest; before it builds the index of
a large map, ``geomatch.index.fastest`` does try. torch and OpenVINO compute in bfloat16 where the processor multiplies
matrices of it, which takes half the time; where it does not, 8-bit integers do, see ``geomatch.quantised``.
``benchmarks/backends.py`` prints the speed of each, how near their vectors lie to those of torch in float32, and what
they find.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from ctypes import CDLL
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geomatch import defaults
from geomatch.errors import UsageError
from geomatch.extras import needs_extra
from geomatch.nets.shapes import EncoderShape, Modality, PixelShape
from geomatch.threads import one_thread

if TYPE_CHECKING:
    from torch import nn

    from geomatch.weights import Weights

    NetWeights = Weights[EncoderShape] | Weights[PixelShape]

Runner = Callable[[NDArray[np.float32], Modality], NDArray[np.float32]]  # [P x h x w] -> [C x h / 2 x w / 2]

AUTO = defaults.BACKEND
_CUDA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_AMD_DRIVER = Path("/dev/kfd")
_PROCESSOR = Path("/proc/cpuinfo")
_MATRICES_OF_BFLOAT16 = "amx_bf16"  # products of vectors alone, as AVX-512 has them, are slower than float32


def load_runner(weights: NetWeights, backend: str = AUTO, *, exact: bool = False) -> Runner:
    """What runs a network.

    Args:
        weights: of the network.
        backend: a key of ``BACKENDS``, or "auto".
        exact: float32 even where fewer bits are faster.

    Raises:
        UsageError: an unknown backend, or one that is not installed.
        InputError: the file cannot be read any more, or its parameters do not fit the network.
    """
    check_backend(backend)
    return BACKENDS[usual() if backend == AUTO else backend](weights, exact)


def check_backend(name: str) -> None:
    """Raise as ``load_runner``, but load nothing."""
    if name == AUTO:
        return
    if name not in BACKENDS:
        raise UsageError(f"unknown backend {name!r}", where="--backend", hint=f"choose auto, {', '.join(BACKENDS)}")
    with needs_extra("fast", f"the backend {name}"):
        for module in _NEEDED.get(name, ()):
            if not find_spec(module):
                raise ModuleNotFoundError(name=module)


def usual() -> str:
    """The backend that ``auto`` stands for where none was tried."""
    return "torch" if on_gpu() else next(name for name in ("openvino", "onnxruntime", "torch") if name in installed())


def on_gpu() -> bool:
    """Whether torch runs networks on a GPU; it is not imported, which takes long, where there is no driver of one."""
    if "torch" not in sys.modules and not _has_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _has_driver() -> bool:
    if _AMD_DRIVER.exists():
        return True
    try:
        CDLL(_CUDA_DRIVER)
    except OSError:
        return False
    return True


def installed() -> list[str]:
    """Backends whose libraries are there."""
    return [name for name in BACKENDS if all(find_spec(module) for module in _NEEDED.get(name, ()))]


def _torch_runner(weights: NetWeights, exact: bool) -> Runner:
    import torch

    net = _net(weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    short = not exact and (device.type == "cuda" or multiplies_bfloat16())
    net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's hints

    @torch.inference_mode()
    def run(planes: NDArray[np.float32], modality: Modality) -> NDArray[np.float32]:
        with one_thread(), torch.autocast(device.type, torch.bfloat16, enabled=short):
            batch = torch.from_numpy(planes)[None].to(device, memory_format=torch.channels_last)
            features: NDArray[np.float32] = net(batch, modality)[0].float().cpu().numpy()
        return features

    return run


def _net(weights: NetWeights) -> nn.Module:
    from geomatch.nets.encoder import EncoderNet
    from geomatch.nets.pixel_net import PixelNet

    shape = weights.shape
    return weights.load_into(EncoderNet(shape) if isinstance(shape, EncoderShape) else PixelNet(shape))


def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies matrices of it, faster than of float32, as far as the system tells."""
    try:
        return _MATRICES_OF_BFLOAT16 in _PROCESSOR.read_text().split()
    except OSError:  # no Linux
        if sys.platform == "darwin":  # whose processors have none
            return False
        import torch  # which may be too old to tell

        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get(_MATRICES_OF_BFLOAT16))


def _onnx_runner(weights: NetWeights, exact: bool, *, small: bool = False) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model_of = _models(weights, small=small and not exact)

    @cache
    def session(modality: Modality) -> Any:
        return onnxruntime.InferenceSession(model_of(modality), options, providers=["CPUExecutionProvider"])

    def run(planes: NDArray[np.float32], modality: Modality) -> NDArray[np.float32]:
        features: NDArray[np.float32] = session(modality).run(None, {"planes": planes[None]})[0][0]
        return features

    return run


def _openvino_runner(weights: NetWeights, exact: bool, *, small: bool = False) -> Runner:
    short = not exact and multiplies_bfloat16()
    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if short else "f32",
    }

    model_of = _models(weights, small=small and not exact)

    @cache
    def compiled(modality: Modality) -> Any:
        core = _openvino_core()
        return core.compile_model(core.read_model(model_of(modality)), "CPU", settings)

    def run(planes: NDArray[np.float32], modality: Modality) -> NDArray[np.float32]:
        features: NDArray[np.float32] = compiled(modality)(planes[None])[0][0]
        return features

    return run


def _models(weights: NetWeights, *, small: bool) -> Callable[[Modality], bytes]:
    """Gives the branches as ONNX, their numbers ``small`` integers or floats."""
    models = to_onnx(weights)
    if not small:
        return models.__getitem__

    def rounded(modality: Modality) -> bytes:
        with needs_extra("fast", "a backend in 8 bits"):
            from geomatch.quantised import quantised

            return quantised(models[modality], modality)

    return rounded


@cache
def _openvino_core() -> Any:
    """One for the process: its processor plugin gives the main thread a signal stack, and frees it when it is unloaded.

    A signal that came after that, such as that of a finished child process, ended the process.
    """
    import openvino

    return openvino.Core()


def to_onnx(weights: NetWeights) -> dict[Modality, bytes]:
    """The branches of a network as ONNX, see ``geomatch.nets.onnx_graph``; raises as ``load_runner``."""
    from geomatch.nets.onnx_graph import MisfitError, onnx_of

    try:
        return onnx_of(weights.shape, weights.parameters())
    except MisfitError as error:
        raise weights.misfit(error) from error


BACKENDS: dict[str, Callable[[NetWeights, bool], Runner]] = {
    "torch": _torch_runner,
    "onnxruntime": _onnx_runner,
    "openvino": _openvino_runner,
    "onnxruntime-int8": partial(_onnx_runner, small=True),
    "openvino-int8": partial(_openvino_runner, small=True),
}
_NEEDED = {
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "onnxruntime-int8": ("onnx", "onnxruntime"),
    "openvino-int8": ("onnx", "onnxruntime", "openvino"),
}
