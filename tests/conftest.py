"""What all tests share. metalgrad is not imported here: pytest hooks it later."""

from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]

# Below NumPyro nothing may broadcast over a missing axis: an error of one axis in a
# sum over spaxels looks like a number. NumPyro's plates broadcast, so the layers of
# the model are exempt.
PURE = {
    "test_bins",
    "test_calibrations",
    "test_continuum",
    "test_dust",
    "test_geometry",
    "test_likelihood",
    "test_lines",
    "test_lsf",
    "test_normal",
    "test_psf",
}


@pytest.fixture(autouse=True)
def strict_ranks(request):
    """Refuse implicit broadcasting over ranks in the tests of layer 1."""
    if request.path.stem not in PURE:
        yield
        return
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="module")
def double_precision():
    """Compute in double precision, in modules that are marked to use it."""
    with jax.enable_x64(new_val=True):
        yield


@pytest.fixture(scope="session")
def shared():
    """Real data kept beside the checkout, too large to be a part of it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data are not beside this checkout (../shared/data)")
    return folder


def pytest_collection_modifyitems(items):
    """Skip what needs an accelerator where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and jax.default_backend() == "cpu":
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no accelerator here"))
