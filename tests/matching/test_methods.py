"""Methods by what a user writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from places import pair
from safetensors import safe_open
from safetensors.numpy import save_file

import geomatch
from geomatch.errors import InputError, UsageError
from geomatch.matching.identity import identity_of
from geomatch.matching.methods import TRAINED, method

SAR, OPTICAL = pair(np.eye(3))
SHIPPED = Path(geomatch.__file__).parent / "nets" / "weights"


@pytest.mark.parametrize("name", ["sift-mutual", "hardnet", "r2d2"])
def test_so_many_keypoints_are_asked_as_are_written(name: str) -> None:
    assert method(f"{name}@40")(SAR, OPTICAL).found == (40, 40)


@pytest.mark.parametrize("name", TRAINED)
def test_weights_of_a_file_stand_in_for_the_shipped_ones(name: str, tmp_path: Path) -> None:
    shipped, other = SHIPPED / f"{TRAINED[name][0]}.safetensors", tmp_path / "other.safetensors"
    assert identity_of(method(f"{name}={shipped}")) == identity_of(method(name))
    with safe_open(shipped, "np") as file:
        arrays, about = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    key = next(key for key, array in arrays.items() if array.ndim > 1)
    save_file(arrays | {key: arrays[key] + 1}, other, about)
    assert identity_of(method(f"{name}={other}")) != identity_of(method(name))


def test_weights_and_keypoints_go_together(tmp_path: Path) -> None:
    path = SHIPPED / "d2net1.safetensors"
    assert method(f"d2@17={path}")(SAR, OPTICAL).found == (17, 17)
    with pytest.raises(InputError, match=r"no\.safetensors"):
        method(f"d2@17={tmp_path / 'no.safetensors'}")
    with pytest.raises(InputError, match=r"d2net1\.safetensors"):
        method(f"r2d2={path}")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("loftr", r"loftr needs weights .* loftr=FILE"),
        ("sift=a.pth", r"sift has no weights\. Write sift alone"),
        ("loft=a.pth", r"unknown method 'loft=a\.pth'"),
        ("surf", "unknown method 'surf'"),
        ("area@100", "area does not say how many"),
        ("sift@", "'' is no number of keypoints"),
        ("sift@2", r"'2' is no number of keypoints\. Write sift@K, K being 3 or more"),
        ("sift@many", "'many' is no number"),
        ("d2=weights.pth", r"unknown weights 'weights\.pth'"),
    ],
)
def test_what_cannot_be_is_told(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        method(spec)
