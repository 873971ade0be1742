"""Strong-line calibrations: laws that hold for every card."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from metalgrad import cards, lines
from metalgrad.calibrations import DIFFERENCES, Relation, load_calibration

pytestmark = pytest.mark.usefixtures("double_precision")

PAIRS = [
    (name, ratio)
    for name in cards.names("calibrations")
    for ratio in load_calibration(name).ratios
]
every_relation = pytest.mark.parametrize(("name", "ratio"), PAIRS)


def relation(name, ratio):
    return load_calibration(name)[ratio]


@every_relation
def test_polynomial_inside_its_range(name, ratio):
    found = relation(name, ratio)
    metallicity = np.linspace(*found.valid, 31)
    expected = np.polynomial.Polynomial(found.coefficients)(
        metallicity - found.zero_point
    )
    assert_allclose(found.log_ratio(jnp.array(metallicity)), expected, atol=1e-12)


@every_relation
def test_ends_are_smooth(name, ratio):
    found = relation(name, ratio)
    curve = np.polynomial.Polynomial(found.coefficients)
    slope = curve.deriv()
    for end, outward in zip(found.valid, (-1, 1), strict=True):
        beyond = end + outward * np.array([0.0, 1e-7, 0.4, 3.0])
        value = curve(end - found.zero_point)
        tangent = value + slope(end - found.zero_point) * (beyond - end)
        assert_allclose(found.log_ratio(jnp.array(beyond)), tangent, rtol=1e-10)
        assert np.all(np.isfinite(tangent))


@every_relation
def test_gradient_is_that_of_finite_differences(name, ratio):
    found = relation(name, ratio)
    low, high = found.valid
    # off the ends by more than a step: beyond, inside, beyond
    points = jnp.array(
        [low - 3, low - 0.01, (2 * low + high) / 3, high + 0.01, high + 3]
    )
    gradient = jax.vmap(jax.grad(found.log_ratio))(points)
    step = 1e-5
    ahead, behind = found.log_ratio(points + step), found.log_ratio(points - step)
    assert_allclose(gradient, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)
    assert_allclose(gradient, found.slope(points), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("ratio", "metallicity", "height"),
    [
        ("R3", 7.918, 0.798),
        ("Rhat", 8.083, 0.777),
        ("R2", 8.559, 0.497),
        ("O3O2", 7.537, 0.857),
        ("RS32", 7.999, 0.788),
    ],
)
def test_turning_points(ratio, metallicity, height):
    grid = np.arange(7.3, 8.8, 1e-3)
    curve = np.asarray(relation("curti23", ratio).log_ratio(jnp.array(grid)))
    assert_allclose(grid[np.argmax(curve)], metallicity, atol=2e-3)
    assert_allclose(curve.max(), height, atol=1e-3)


@every_relation
def test_dispersion_is_positive_everywhere(name, ratio):
    found = load_calibration(name)
    metallicity = jnp.array([5.5, 7.3, 7.918, 8.4, 10.5])
    if found[ratio].dispersion is None:
        with pytest.raises(ValueError, match=rf"{name} has no published.*of {ratio}"):
            found.dispersion(ratio, metallicity)
        found = found.with_dispersion(**{ratio: 0.12})
        assert_allclose(found.dispersion(ratio, metallicity), 0.12)
    assert np.all(np.asarray(found.dispersion(ratio, metallicity)) > 0)


@pytest.mark.parametrize(
    ("name", "ratio", "slope", "sigma"),
    # abundance = a + slope * ratio, with a scatter sigma in the abundance
    [("marino13-o3n2", "O3N2", -0.214, 0.18), ("marino13-n2", "N2", 0.462, 0.16)],
)
def test_dispersion_in_abundance_is_turned(name, ratio, slope, sigma):
    found = load_calibration(name).dispersion(ratio, jnp.array([7.1, 8.4, 9.6]))
    assert_allclose(found, sigma / abs(slope), rtol=1e-4)


def test_a_dispersion_may_change_with_metallicity():
    growing = load_calibration("curti23-growing")
    metallicity = np.array([6.5, 7.25, 7.5, 8.15, 8.6])
    expected = np.interp(metallicity, [7.25, 7.75, 8.15, 8.5], [0.29, 0.15, 0.10, 0.09])
    assert_allclose(
        growing.dispersion("R3", jnp.array(metallicity)), expected, rtol=1e-6
    )
    plain = load_calibration("curti23")
    at = jnp.linspace(7.0, 8.8, 10)
    assert_allclose(growing.log_ratio("R3", at), plain.log_ratio("R3", at))
    with pytest.raises(ValueError, match=r"pairs of increasing metallicity"):
        Relation((0.0, 1.0), 8.0, (7.0, 9.0), ((8.0, 0.1), (7.0, 0.2)), "ratio")


def test_dispersion_in_abundance_follows_the_slope():
    curved = Relation((0.3, -1.0, 0.5), 8.0, (7.2, 8.6), 0.1, "abundance")
    metallicity = jnp.array([7.0, 7.5, 8.2])
    slopes = np.array([-1.8, -1.5, -0.8])  # -1 + (Z - 8), held beyond 7.2
    assert_allclose(curved.ratio_dispersion(metallicity), 0.1 * np.abs(slopes))


def test_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="direction 'sideways' of a dispersion"):
        Relation((0.3, -1.0), 8.0, (7.2, 8.6), 0.1, "sideways")


@pytest.mark.parametrize("width", [0.0, -0.1, np.nan])
def test_a_dispersion_is_above_0(width):
    with pytest.raises(ValueError, match=r"dispersion .* is none; give a number above"):
        load_calibration("curti23").with_dispersion(R3=width)


def test_several_ratios_are_stacked():
    curti, metallicity = load_calibration("curti23"), jnp.array([7.4, 8.1, 8.6])
    ratios = ("R3", "S2")
    for column, ratio in enumerate(ratios):
        assert_allclose(
            curti.log_ratios(ratios, metallicity)[:, column],
            curti.log_ratio(ratio, metallicity),
        )
        assert_allclose(
            curti.dispersions(ratios, metallicity)[:, column],
            curti.dispersion(ratio, metallicity),
        )


def test_range_of_several_ratios_is_the_narrowest():
    curti = load_calibration("curti23")
    assert curti.valid("R3") == (7.0, 8.9)
    assert curti.valid("R3", "S2") == (7.6, 8.9)
    assert curti.valid() == curti.valid(*curti.ratios)


def test_unknown_ratio_is_refused():
    with pytest.raises(ValueError, match="calibration curti23 has no ratio R9; it has"):
        load_calibration("curti23").log_ratio("R9", 8.0)


def test_replaced_dispersion_leaves_the_original_alone():
    before = load_calibration("curti23")
    after = before.with_dispersion(R3=0.3)
    assert after["R3"].dispersion == 0.3
    assert before["R3"].dispersion == 0.09
    assert after["R2"] is before["R2"]


def test_a_card_of_the_user(tmp_path):
    path = tmp_path / "mine.toml"
    head = 'reference = "x"\nzero_point = 8.0\nvalid = [7.5, 8.5]\nstatus = "mine"\n'
    path.write_text(f"{head}[R3]\ncoefficients = [0.5, -1.0]\nvalid = [7.6, 8.4]\n")
    mine = load_calibration(path)
    assert mine.name == "mine"
    assert mine["R3"] == mine["R3"]
    assert mine.valid("R3") == (7.6, 8.4)
    assert_allclose(mine.log_ratio("R3", 9.0), -0.5)
    path.write_text(f"{head}[R3]\ncoeficients = [0.5, -1.0]\n")
    with pytest.raises(ValueError, match="coefficients"):
        load_calibration(path)


LINES = ("OII", "Hbeta", "OIII", "NII", "Halpha", "SII")
EXACT = np.random.default_rng(5).normal(size=(400_000, 4))
RATIOS = ("R3", "R2", "Ne3O2", "S2")


def test_dispersions_of_differences_tell_how_ratios_hang_together():
    """Of many galaxies log R3 - log R2 scatters as O3O2 does, and R3 - S2 as O3S2."""
    tied, at = load_calibration("curti23-tied"), jnp.full(len(EXACT), 8.0)
    departure = np.asarray(tied.tie(RATIOS, at, jnp.array(EXACT)))
    width = np.asarray(tied.dispersions(RATIOS, at[:1]))[0]
    off = dict(zip(RATIOS, (departure * width).T, strict=True))
    for name, expected in zip(RATIOS, width, strict=True):
        assert_allclose(off[name].std(), expected, rtol=5e-3)
    assert_allclose((off["R3"] - off["R2"]).std(), 0.15, rtol=5e-3)
    assert_allclose((off["R3"] - off["S2"]).std(), 0.17, rtol=5e-3)
    assert abs(np.corrcoef(off["R3"], off["Ne3O2"])[0, 1]) < 0.01  # of which none tells


@pytest.mark.parametrize("name", ["curti23-tied", "curti23", "curti23-growing"])
def test_ties_may_be_undone(name):
    calibration, at = load_calibration(name), jnp.linspace(7.0, 8.8, 50)
    departure = jnp.array(EXACT[:50])
    tied = calibration.tie(RATIOS, at, departure)
    assert_allclose(calibration.untie(RATIOS, at, tied), departure, atol=1e-12)
    assert np.array_equal(tied, departure) != (name == "curti23-tied")


def test_ties_hold_where_dispersions_grow():
    """A correlation is never beyond 1, whatever samples the dispersions are of."""
    growing = replace(load_calibration("curti23-growing"), tied=True)
    found = growing.follow(("R3", "R2"), jnp.array([7.25, 8.6]))
    low = (0.29**2 + 0.48**2 - 0.70**2) / (2 * 0.29 * 0.48)
    high = (0.09**2 + 0.11**2 - 0.15**2) / (2 * 0.09 * 0.11)
    assert_allclose(found, [[0, low], [0, high]], rtol=1e-9)
    wide = growing.with_dispersion(O3O2=3.0)
    assert abs(wide.follow(("R3", "R2"), jnp.array([8.0]))[0, 1]) < 1


def test_whether_ratios_are_tied_is_said_plainly(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'tied = "perhaps"\nreference = "mine"\nzero_point = 8.69\n'
        'valid = [7.0, 9.0]\nstatus = "made up"\n[R3]\ncoefficients = [0.5, -1.0]\n'
    )
    with pytest.raises(ValueError, match=r"tied of .* is 'perhaps'; give true or"):
        load_calibration(path)


def test_a_card_that_tells_no_ties_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'tied = true\nreference = "mine"\nzero_point = 8.69\n'
        'valid = [7.0, 9.0]\nstatus = "made up"\n[R3]\ncoefficients = [0.5, -1.0]\n'
        "[R2]\ncoefficients = [0.5, -1.0]\n"
    )
    with pytest.raises(ValueError, match=r"R3 with R2 and O3O2, or S2 and O3S2, or N2"):
        load_calibration(path)


def test_without_r3_there_is_nothing_to_follow():
    tied, at = load_calibration("curti23-tied"), jnp.array([8.0])
    departure = jnp.array([[1.0, -2.0]])
    assert np.array_equal(tied.tie(("R2", "S2"), at, departure), departure)


@pytest.mark.parametrize("pair", DIFFERENCES.items(), ids="-".join)
def test_differences_are_what_they_are_called(pair):
    name, other = pair
    flux = {line: jnp.log(float(n + 2)) for n, line in enumerate(LINES)}
    r3, one, apart = (lines.ratio(n).log10(flux) for n in ("R3", name, other))
    assert_allclose(apart, r3 - one, rtol=1e-12)
