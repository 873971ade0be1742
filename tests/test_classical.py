import csv
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from metalgrad import cards, classical, dust, lines
from metalgrad.calibrations import Calibration, Relation, load_calibration

SHARED = Path(__file__).parents[2] / "shared"
# [O III]/Hβ alone, at or above the top of its calibration: the paper does not say how
# it chose a branch there.
ONE_FACT = {("A2744-YD4", "s1"), ("BDF-3299", "c")}


@pytest.fixture(scope="module")
def published():
    """Sources of Venturi et al. (2024), Table 3, that have a metallicity."""
    table = cards.table("published/venturi24.ecsv")
    known = np.isfinite(table["metallicity"])
    return {name: np.array(column)[known] for name, column in table.items()}


@pytest.fixture(scope="module")
def compared(published):
    pairs = zip(published["target"], published["source"], strict=True)
    return np.array([pair not in ONE_FACT for pair in pairs])


@pytest.fixture(scope="module")
def measured(published):
    names = [name for name in lines.catalogue() if name in published]
    return classical.chi2_metallicity(
        {name: published[name] for name in names},
        {name: published[f"{name}_err"] for name in names},
        load_calibration("curti23"),
    )


def toy(valid=(7.0, 9.0), **coefficients):
    """Calibration around 12+log(O/H) = 8 with next to no dispersion."""
    relations = {
        name: Relation(tuple(values), 8.0, valid, 1e-6, "ratio")
        for name, values in coefficients.items()
    }
    return Calibration("toy", "0000reference", relations)


def noiseless(fluxes):
    return fluxes, {line: 1e-9 * np.abs(flux) for line, flux in fluxes.items()}


# The definitions of the papers, written out again.
BY_HAND = {
    "R2": lambda f: f["OII"] / f["Hbeta"],
    "R3": lambda f: f["OIII"] / f["Hbeta"],
    "R3sum": lambda f: (1 + 1 / 2.984) * f["OIII"] / f["Hbeta"],
    "R23": lambda f: (f["OII"] + (1 + 1 / 2.984) * f["OIII"]) / f["Hbeta"],
    "O3O2": lambda f: f["OIII"] / f["OII"],
    "Rhat": lambda f: f["OII"] ** 0.47 * f["OIII"] ** 0.88 / f["Hbeta"] ** 1.35,
    "Ne3O2": lambda f: f["NeIII"] / f["OII"],
    "N2": lambda f: f["NII"] / f["Halpha"],
    "S2": lambda f: f["SII"] / f["Halpha"],
    "O3N2": lambda f: (f["OIII"] / f["Hbeta"]) / (f["NII"] / f["Halpha"]),
    "O3S2": lambda f: (f["OIII"] / f["Hbeta"]) / (f["SII"] / f["Halpha"]),
    "RS32": lambda f: f["OIII"] / f["Hbeta"] + f["SII"] / f["Halpha"],
}


def fluxes_of(name, log_ratio):
    """Dust-free fluxes that have one given log ratio, found by root finding."""

    def fluxes(t):
        forbidden = {"OIII": 10**t, "OII": 10 ** (-t), "NII": 0.2, "SII": 0.3}
        forbidden["NII" if name == "N2" else "SII"] = 10**t
        if name in ("R2", "R23", "Rhat"):
            forbidden["OII"] = 10**t
        if name == "O3S2":
            forbidden["SII"] = 0.3
        return forbidden | {"NeIII": 1.0, "Hbeta": 1.0, "Halpha": 2.87}

    root = scipy.optimize.brentq(
        lambda t: np.log10(BY_HAND[name](fluxes(t))) - log_ratio, -6, 6
    )
    return {line: fluxes(root)[line] for line in lines.ratio(name).lines}


# --- the paper --------------------------------------------------------------------


def test_table_3_gives_table_3(published, measured, compared):
    offset = (measured.metallicity - published["metallicity"])[compared]
    assert len(offset) == 11
    assert np.sqrt(np.mean(offset**2)) < 0.025
    assert abs(offset.mean()) < 0.015
    assert (offset < published["metallicity_plus"][compared]).all()
    assert (offset > -published["metallicity_minus"][compared]).all()


def test_one_ratio_at_the_top_of_its_curve_is_wide_and_two_sided(published, measured):
    row = list(published["source"]).index("s1")
    assert measured.count[row] == 1
    assert measured.upper[row] - measured.lower[row] > 0.3


def test_an_independent_reduction_of_table_3_agrees(published, measured):
    path = SHARED / "physics" / "table3_reproduction.csv"
    if not path.is_file():
        pytest.skip(f"no {path.name} in ../shared/physics")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["paper"]) for row in rows] == published["metallicity"].tolist()
    chi2, count = zip(*(row["C23b_chi2"].split("/") for row in rows), strict=True)
    expected = [float(row["C23b"]) for row in rows]
    assert measured.metallicity == pytest.approx(expected, abs=0.01)
    assert measured.chi2 == pytest.approx(np.array(chi2, float), abs=0.15)
    assert measured.count.tolist() == [int(n) for n in count]
    assert measured.ebv == pytest.approx([float(r["EBV"]) for r in rows], abs=2e-3)


# --- the interval and the best value, against closed forms -----------------------


def test_a_linear_calibration_gives_a_normal_posterior():
    flux, error = {"OIII": 3.0, "Hbeta": 2.0}, {"OIII": 0.12, "Hbeta": 0.1}
    found = classical.chi2_metallicity(flux, error, toy(R3=(0.3, 0.8)), ("R3",))
    width = np.hypot(0.12 / 3, 0.1 / 2) / np.log(10) / 0.8
    centre = 8 + (np.log10(1.5) - 0.3) / 0.8
    low, high = scipy.stats.norm(centre, width).ppf([0.16, 0.84])
    assert found.metallicity == pytest.approx(centre, abs=6e-4)
    assert [found.lower, found.upper] == pytest.approx([low, high], abs=2e-4)
    assert found.chi2 < 1e-3
    assert np.isnan(found.second)
    assert not found.at_edge


def test_dispersion_and_error_add_in_quadrature():
    calibration = toy(R3=(0.0, 1.0)).with_dispersion(R3=0.09)
    flux, error = {"OIII": 3.0, "Hbeta": 2.0}, {"OIII": 0.12, "Hbeta": 0.1}
    found = classical.chi2_metallicity(flux, error, calibration, ("R3",))
    width = np.hypot(np.hypot(0.12 / 3, 0.1 / 2) / np.log(10), 0.09)
    expected = 2 * scipy.stats.norm.ppf(0.84) * width
    assert found.upper - found.lower == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("name", classical.PAPER_RATIOS)
def test_errors_of_ratios_agree_with_monte_carlo(name):
    rng = np.random.default_rng(3)
    flux = {
        line: 10 ** rng.uniform(0.2, 0.6) for line in sorted(lines.ratio(name).lines)
    }
    flux |= {line: 2.0 for line in flux if line == "Hbeta"}
    flux |= {line: 4.0 for line in flux if line == "Halpha"}  # no dust: below 2.87
    error = {line: flux[line] * rng.uniform(0.02, 0.05) for line in flux}
    centre = float(np.log10(BY_HAND[name](flux)))
    found = classical.chi2_metallicity(
        flux, error, toy(**{name: (centre, 1.0)}), (name,)
    )
    draws = {line: rng.normal(flux[line], error[line], 200_000) for line in flux}
    low, high = np.quantile(np.log10(BY_HAND[name](draws)), [0.16, 0.84])
    assert found.ebv == 0
    assert found.upper - found.lower == pytest.approx(high - low, rel=0.01)


def test_the_sum_of_two_ratios_is_the_smaller_of_their_weighted_mean():
    # Two linear ratios: least squares in closed form.
    flux = {"OIII": 3.0, "Hbeta": 2.0, "OII": 2.5}
    error = {line: 0.04 * flux[line] for line in flux}
    calibration = toy(R3=(0.3, 0.8), O3O2=(0.1, -0.5)).with_dispersion(O3O2=0.07)
    found = classical.chi2_metallicity(flux, error, calibration, ("R3", "O3O2"))
    noise = 0.04 * np.sqrt(2) / np.log(10)
    slopes, sigma = np.array([0.8, -0.5]), np.hypot(noise, [0, 0.07])
    gap = np.log10([1.5, 1.2]) - [0.3, 0.1]
    (shift,), (least,), *_ = np.linalg.lstsq((slopes / sigma)[:, None], gap / sigma)
    assert found.metallicity == pytest.approx(8 + shift, abs=6e-4)
    assert found.chi2 == pytest.approx(least, rel=1e-3)
    assert found.count == 2


def test_a_double_valued_ratio_reports_both_solutions():
    calibration = toy(R3=(0.5, 0.0, -1.0)).with_dispersion(R3=0.02)
    flux, error = noiseless({"OIII": 10**0.25, "Hbeta": 1.0})
    found = classical.chi2_metallicity(flux, error, calibration, ("R3",))
    both = sorted([float(found.metallicity), float(found.second)])
    assert both == pytest.approx([7.5, 8.5], abs=2e-3)
    assert found.second_chi2 == pytest.approx(0.0, abs=1e-2)
    assert found.lower < 7.55 < 8.45 < found.upper


def test_a_ratio_out_of_reach_is_flagged_at_the_edge():
    flux, error = noiseless({"OIII": 100.0, "Hbeta": 1.0})
    found = classical.chi2_metallicity(flux, error, toy(R3=(0.3, 0.8)), ("R3",))
    assert found.metallicity == pytest.approx(9.0)
    assert found.at_edge


@pytest.mark.parametrize("card", cards.names("calibrations"))
def test_every_calibration_gives_back_the_metallicity_it_was_given(card):
    calibration = load_calibration(card)
    for name in calibration.ratios:
        low, high = calibration.valid(name)
        # Where the source gave no dispersion the user must: any will do here.
        known = calibration.with_dispersion(**{name: 0.1})
        for truth in np.linspace(low, high, 7)[1:-1]:
            flux, error = noiseless(
                fluxes_of(name, float(calibration.log_ratio(name, truth)))
            )
            found = classical.chi2_metallicity(flux, error, known, (name,))
            assert found.chi2 < 1e-3
            nearest = np.nanmin(
                np.abs([found.metallicity - truth, found.second - truth])
            )
            slope = abs(float(calibration[name].slope(truth)))
            assert nearest < 2e-3 or nearest * slope < 2e-3


# --- what is selected -------------------------------------------------------------


def test_only_ratios_with_all_lines_above_three_sigma_are_used():
    flux = {"OII": [9.1, 8.9, np.nan, -9.1], "OIII": [50.0] * 4, "Hbeta": [10.0] * 4}
    error = {"OII": [3.0] * 3 + [-1.0], "OIII": [1.0] * 4, "Hbeta": [1, 1, 1, np.inf]}
    used = classical.select_ratios(flux, error, ("R2", "R3", "O3O2", "Ne3O2"))
    assert used.tolist() == [
        [True, True, True, False],
        [False, True, False, False],
        [False, True, False, False],
        [False, False, False, False],
    ]


def test_a_spectrum_without_any_ratio_has_no_metallicity():
    flux = {"OIII": np.array([[5.0, np.nan]]), "Hbeta": np.array([[1.0, 1.0]])}
    error = {line: np.full((1, 2), 0.1) for line in flux}
    found = classical.chi2_metallicity(flux, error, load_calibration("curti23"))
    assert found.metallicity.shape == (1, 2)
    assert found.count.tolist() == [[1, 0]]
    assert np.isfinite(found.metallicity).tolist() == [[True, False]]
    assert np.isnan(found.chi2[0, 1])
    assert found.used.shape == (1, 2, len(classical.PAPER_RATIOS))


# --- dust -------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "intrinsic"), [("Halpha", 2.87), ("Hgamma", 0.466)])
def test_dust_put_on_with_another_code_is_taken_off(line, intrinsic):
    pyneb = pytest.importorskip("pyneb")
    law = pyneb.RedCorr(E_BV=0.3, R_V=4.05, law="Cal00")
    true = {"Hbeta": 10.0, line: 10.0 * intrinsic, "OII": 20.0}
    waves = {name: lines.catalogue()[name].wavelength * 1e4 for name in true}
    seen = {name: true[name] / float(law.getCorr(waves[name])) for name in true}
    error = {name: 0.01 * seen[name] for name in seen}
    flux, scaled, ebv = classical.correct_dust(seen, error)
    assert ebv == pytest.approx(0.3, abs=2e-3)
    for name in true:
        assert flux[name] == pytest.approx(true[name], rel=0.01)
        assert scaled[name] / flux[name] == pytest.approx(0.01)


def test_halpha_goes_before_hgamma_and_nothing_is_negative():
    flux = {
        "Hbeta": [10.0, 10.0, 10.0, 10.0],
        "Halpha": [20.0, 40.0, 40.0, np.nan],
        "Hgamma": [3.0, 3.0, 3.0, 3.0],
    }
    error = {
        "Hbeta": [1.0, 1.0, 1.0, 4.0],
        "Halpha": [1.0, 1.0, 20.0, 1.0],
        "Hgamma": [0.5, 0.5, 0.5, 0.5],
    }
    _, _, ebv = classical.correct_dust(flux, error)
    k = {name: dust.calzetti(lines.catalogue()[name].wavelength) for name in flux}
    alpha = 2.5 * np.log10(4 / 2.87) / (k["Hbeta"] - k["Halpha"])
    gamma = 2.5 * np.log10(0.3 / 0.466) / (k["Hbeta"] - k["Hgamma"])
    assert ebv == pytest.approx([0.0, alpha, gamma, 0.0], rel=1e-6)


# --- errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flux", "error", "words"),
    [
        ({"OIII": 1.0}, {}, "line OIII has a flux and no error.*infinite where"),
        ({}, {}, "no line has a flux.*give columns named as"),
        (
            {"OIII": [1.0, 2.0]},
            {"OIII": 1.0},
            "OIII has a column of shape.*one entry",
        ),
        ({"O3": 1.0}, {"O3": 1.0}, "unknown line 'O3'; rename it to one of .*OIII"),
    ],
)
def test_bad_tables_are_named(flux, error, words):
    with pytest.raises(ValueError, match=words):
        classical.chi2_metallicity(flux, error, toy(R3=(0.0, 1.0)), ("R3",))


def test_ratios_nowhere_valid_together_are_named():
    blue = toy(valid=(7.0, 7.8), R3=(0.0, 1.0))
    red = toy(valid=(8.2, 9.0), R2=(0.0, 1.0))
    both = Calibration("split", "0000reference", blue.relations | red.relations)
    flux, error = noiseless({"OIII": 1.0, "OII": 1.0, "Hbeta": 1.0})
    words = "split is valid in R3 from 7 to 7.8; R2 from 8.2 to 9.*leave one"
    with pytest.raises(ValueError, match=words):
        classical.chi2_metallicity(flux, error, both, ("R3", "R2"))


# --- the straight line ------------------------------------------------------------


def test_the_line_agrees_with_scipy():
    rng = np.random.default_rng(11)
    radius = rng.uniform(0.3, 4.0, 12)
    error = rng.uniform(0.05, 0.2, 12)
    metallicity = 8.2 - 0.07 * radius + error * rng.normal(size=12)
    line = classical.classical_gradient(
        np.append(radius, 9.0), np.append(metallicity, np.nan), np.append(error, 0.1)
    )
    best, covariance = scipy.optimize.curve_fit(
        lambda r, slope, central: central + slope * r,
        radius,
        metallicity,
        sigma=error,
        absolute_sigma=True,
    )
    assert [line.slope, line.central] == pytest.approx(best, rel=1e-5)
    assert line.covariance == pytest.approx(covariance, rel=1e-4)
    assert [line.slope_error, line.central_error] == pytest.approx(
        np.sqrt(np.diag(covariance)), rel=1e-4
    )


@pytest.mark.parametrize(
    ("radius", "error", "words"),
    [
        ([1.0, 1.0], 0.1, "1 different finite radii.*narrower annuli"),
        ([1.0, 2.0], 0.0, "error of metallicity 0 cannot weight.*give its error"),
    ],
)
def test_lines_without_a_slope_are_refused(radius, error, words):
    with pytest.raises(ValueError, match=words):
        classical.classical_gradient(radius, [8.0, 8.1], error)
