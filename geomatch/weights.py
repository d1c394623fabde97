"""Trained weights: the named ones that ship with geomatch, and files of one's own.

A safetensors file holds the parameters; its metadata say which network they belong to and how they came about, and the
sha256 of the whole file is what an index remembers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from numpy.typing import NDArray

from geomatch.errors import InputError, UsageError
from geomatch.files import sha256_of
from geomatch.nets.shapes import (
    D2Shape,
    EncoderShape,
    HardNetShape,
    KeypointShape,
    LTFormerShape,
    PixelShape,
    R2D2Shape,
    RerankerShape,
    Shape,
    VggShape,
)

if TYPE_CHECKING:
    from torch import nn

    from geomatch.nets.encoder import EncoderNet

S = TypeVar("S", bound=Shape)

SUFFIX = ".safetensors"
METADATA = "geomatch"
HINT = "give a file that geomatch train wrote for it"
ARCHITECTURES: dict[type[Any], str] = {
    EncoderShape: "geomatch.nets.encoder.EncoderNet",
    PixelShape: "geomatch.nets.pixel_net.PixelNet",
    LTFormerShape: "geomatch.nets.ltformer.LTFormer",
    HardNetShape: "geomatch.nets.hardnet.HardNet",
    KeypointShape: "geomatch.nets.keypoint_detector.KeypointNet",
    VggShape: "geomatch.nets.vgg.PatchVgg",
    D2Shape: "geomatch.nets.d2net.D2Net",
    R2D2Shape: "geomatch.nets.r2d2.R2D2",
    RerankerShape: "geomatch.nets.reranker.RerankerNet",
}


@dataclass(frozen=True)
class Named:
    """Weights that ship with geomatch.

    Attributes:
        sha256: of the file ``geomatch/nets/weights/NAME.safetensors``.
        radiometry: what images they were trained on.
        trained_on: scenes and split.
        measured: where their figures stand.
        network: what they are of: "encoder", or a descriptor of patches.
    """

    sha256: str
    radiometry: str
    trained_on: str
    measured: str
    network: str = "encoder"


_RADIOMETRY = "optical bands stretched to [0, 1], SAR ln amplitude over its median (geomatch.images)"

_LOCAL_RADIOMETRY = (
    "optical grey and SAR ln amplitude, 1st to 99th percentile as 8 bits, CLAHE (geomatch.matching.side)"
)
_PLAIN_RADIOMETRY = "optical grey and SAR ln amplitude, 1st to 99th percentile as 8 bits (geomatch.matching.side)"
_LOCAL_DATA = "Los Angeles (train fragments), 70 % of the locations of OMBRIA, simulated cities"

NAMED: dict[str, Named] = {
    "la2": Named(
        sha256="4e7d91ee176967eeeaa0a205a973c6abf79155bacba2b1b829fff8a201522ae7",
        radiometry=_RADIOMETRY,
        trained_on="Los Angeles (Sentinel-1 VH and Sentinel-2 at 10 m, train fragments), 70 % of the locations of"
        " OMBRIA, simulated cities; configs/encoder/la.yaml",
        measured="docs/la2.md",
    ),
    "la3": Named(
        sha256="4294e8e464dc0e34f531610c553747c1514402c955ff08744ab021b17c56e1ab",
        radiometry=_RADIOMETRY,
        trained_on="la2, trained on with the same data; configs/encoder/la3.yaml",
        measured="docs/la3.md",
    ),
    "pixels1": Named(
        sha256="c936af0cc2d76a821661200acc470568b0e32d8f7bee23707c8e120e9a661db9",
        radiometry="optical grey and SAR ln amplitude, locally standardised (geomatch.pixel_features)",
        trained_on=_LOCAL_DATA + "; configs/pixels/pixels.yaml",
        measured="docs/pixels1.md",
        network="pixels",
    ),
    "hardnet1": Named(
        sha256="7a0bb34c1345cadc12787b585f6838918b1c616c4c208a35e600f9686c9d20ea",
        radiometry=_LOCAL_RADIOMETRY,
        trained_on=_LOCAL_DATA + "; configs/descriptor/hardnet.yaml",
        measured="docs/hardnet1.md",
        network="hardnet",
    ),
    "ltformer1": Named(
        sha256="d75bb2294e05674610f7dc77e35b097bab96f1db784814f30bf7f963d1cc9909",
        radiometry=_LOCAL_RADIOMETRY,
        trained_on=_LOCAL_DATA + "; configs/descriptor/ltformer.yaml",
        measured="docs/ltformer1.md",
        network="ltformer",
    ),
    "keypoints1": Named(
        sha256="b81e1740391c42ff6a1bfdac0b11b2c2a376ed7bf4cad4797cb9b6dd7f51cdfb",
        radiometry=_PLAIN_RADIOMETRY,
        trained_on=_LOCAL_DATA + "; configs/detector/keypoints.yaml",
        measured="docs/keypoints1.md",
        network="keypoints",
    ),
    "vgg1": Named(
        sha256="08afe4242614ebb11eeffe27cf0d493129c65d3845c37537769c20fa0405d047",
        radiometry=_PLAIN_RADIOMETRY,
        trained_on=_LOCAL_DATA + "; configs/vgg/vgg.yaml",
        measured="docs/matching.md",
        network="vgg",
    ),
    "d2net1": Named(
        sha256="88626bf64db15eafe336e9c79554cced7cd118f9e2a5dc34e6b24dd12cd4bdcc",
        radiometry=_PLAIN_RADIOMETRY,
        trained_on=_LOCAL_DATA + "; configs/detect-describe/d2.yaml",
        measured="docs/matching.md",
        network="d2",
    ),
    "r2d21": Named(
        sha256="122c2a5c2653d0730ee208b6438dbead41d222a663fa6dd2db140d8fdf1a2874",
        radiometry=_PLAIN_RADIOMETRY,
        trained_on=_LOCAL_DATA + "; configs/detect-describe/r2d2.yaml",
        measured="docs/matching.md",
        network="r2d2",
    ),
    "graph1": Named(
        sha256="ac003b93dac1f5a9659d9b70c36f84ccf846772ff358aeb7d593f940415ddd43",
        radiometry="none: vectors, positions and correlations of retrieved tiles (geomatch.reranking)",
        trained_on="what la3 retrieves on Los Angeles east and simulated cities; configs/reranker/graph.yaml",
        measured="docs/reranking.md",
        network="reranker",
    ),
}


@dataclass(frozen=True)
class Weights(Generic[S]):
    """Weights of a network.

    Attributes:
        name: of named weights, else the path of their file.
        path: of the file.
        sha256: of the file.
        shape: of the network.
    """

    name: str
    path: Path
    sha256: str
    shape: S

    @overload
    @classmethod
    def find(cls, name: str) -> Weights[EncoderShape]: ...

    @overload
    @classmethod
    def find(cls, name: str, kind: type[S]) -> Weights[S]: ...

    @classmethod
    def find(cls, name: str, kind: type[Any] = EncoderShape) -> Weights[Any]:
        """Named weights, or those of a file.

        Args:
            name: of them, or a path that ends in .safetensors.
            kind: of the network's shape, by which weights of another network are refused.

        Raises:
            UsageError: neither a name nor a path that ends in .safetensors.
            InputError: the file is missing or damaged, or its weights belong to another network.
        """
        if name in NAMED:
            path = Path(str(files("geomatch") / "nets" / "weights" / f"{name}{SUFFIX}"))
        elif name.endswith(SUFFIX):
            path = Path(name)
        else:
            if Path(name).is_file():
                raise UsageError(f"is no {SUFFIX} file", where=name, hint="give one, as geomatch train writes them")
            raise UsageError(f"unknown weights {name!r}", hint="geomatch weights names those that there are")
        shape = _shape_of(path, kind)
        found: Weights[Any] = Weights(name if name in NAMED else str(path.resolve()), path, sha256_of(path), shape)
        if name in NAMED and found.sha256 != NAMED[name].sha256:
            raise InputError("is not the file that was shipped", where=path, hint="install geomatch again")
        return found

    def net(self: Weights[EncoderShape]) -> EncoderNet:
        """The encoder's network with these weights, in evaluation mode; raises as ``load_into``."""
        from geomatch.nets.encoder import EncoderNet

        return cast(EncoderNet, self.load_into(EncoderNet(self.shape)))

    def parameters(self) -> dict[str, NDArray[Any]]:
        """By their names, whatever the network; read without torch.

        Raises:
            InputError: the file cannot be read any more.
        """
        from safetensors.numpy import load_file

        with _reading(self.path):
            return load_file(self.path)

    def about(self) -> dict[str, Any]:
        """What else the file says of its network: as ``save_weights`` was told, beside architecture and shape."""
        return _metadata_of(self.path)

    def load_into(self, net: nn.Module) -> nn.Module:
        """A network of this shape with these weights, in evaluation mode.

        Raises:
            InputError: the file cannot be read any more, or the parameters do not fit the network.
        """
        from safetensors.torch import load_file

        with _reading(self.path):
            state = load_file(self.path)
        try:
            net.load_state_dict(state)
        except RuntimeError as error:
            raise self.misfit(error) from error
        return net.eval()

    def misfit(self, error: Exception) -> InputError:
        """What is told where the parameters do not fit the network."""
        reason = str(error).splitlines()[-1].strip()
        return InputError(f"weights of another network ({reason})", where=self.path)


def save_weights(net: nn.Module, path: Path, about: Mapping[str, object], *, half: bool = False) -> None:
    """Write the parameters of a network that has a shape, with what is to be known about them.

    ``half``: in half precision; they are read as single precision all the same.
    """
    from safetensors.torch import save_file

    shape = cast(Shape, net.shape)
    known = {"architecture": ARCHITECTURES[type(shape)], "shape": asdict(shape), **about}
    # One entry: safetensors writes several in random order, and the same weights would have another sha256 each time.
    metadata = {METADATA: json.dumps(known, sort_keys=True)}
    state = {name: value.contiguous() for name, value in net.state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_file(state, path, metadata)


def _shape_of(path: Path, kind: type[S]) -> S:
    known = _metadata_of(path)
    if known.get("architecture") != ARCHITECTURES[kind]:
        raise InputError("weights of another network", where=path, hint=HINT)
    try:
        given: dict[str, Any] = known["shape"]
        values: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        return kind(**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"cannot be read as weights ({error})", where=path, hint=HINT) from error


def _metadata_of(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with _reading(path), safe_open(path, "np") as file:
        known: dict[str, Any] = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    return known


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"cannot be read as weights ({error})", where=path, hint=HINT) from error
