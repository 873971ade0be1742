import astropy.units as u
import numpy as np
import pytest
from scipy.integrate import quad

from metalgrad import cards
from metalgrad.classical import correct_dust
from metalgrad.starformation import star_formation_error, star_formation_rate
from metalgrad.targets import load_target

FLUX = u.erg / u.s / u.cm**2


@pytest.fixture(scope="module")
def published():
    """Sources of Venturi et al. (2024), Table 3, that have a star formation rate."""
    table = cards.table("published/venturi24.ecsv")
    known = np.isfinite(table["sfr"])
    return {name: np.array(column)[known] for name, column in table.items()}


# --- the paper --------------------------------------------------------------------


def test_table_3_gives_the_rates_of_table_3(published):
    lines = ("Hbeta", "Halpha")
    *_, ebv = correct_dust(
        {line: published[line] for line in lines},
        {line: published[f"{line}_err"] for line in lines},
    )
    lensed = published["target"] == "A2744-YD4"
    magnification = np.where(lensed, load_target("a2744-yd4").magnification, 1.0)
    red = np.isfinite(published["Halpha"])
    rates = [
        star_formation_rate(
            published[line] * 1e-20 * FLUX,
            redshift=published["redshift"],
            line=line,
            ebv=ebv,
            magnification=magnification,
        )
        for line in lines
    ]
    found = np.where(red, *(rate.to_value(u.Msun / u.yr) for rate in rates[::-1]))
    ratio = found / published["sfr"]
    assert len(ratio) == 12
    assert np.abs(ratio - 1).max() < 0.05
    assert abs(np.median(ratio) - 1) < 0.02


@pytest.mark.parametrize("source", ["YD6", "ZD1", "YD6-[O III]-E", "YD4-[O III]-W"])
def test_limits_give_the_limits_of_table_3(source):
    table = cards.table("published/venturi24.ecsv")
    row = list(table["source"]).index(source)
    found = star_formation_rate(
        table["Hbeta_limit"][row] * 1e-20 * FLUX,
        redshift=table["redshift"][row],
        line="Hbeta",
        magnification=2,
    )
    # One digit of the limits, 0.87 to 1.1.
    assert found.value == pytest.approx(table["sfr_limit"][row], rel=0.06)


# --- closed forms -----------------------------------------------------------------


def test_the_rate_is_that_of_a_distance_integrated_by_hand():
    # Planck 2018 (A&A 641, A6, Table 2, last column), flat, matter and Λ alone:
    # radiation and neutrinos change it by 1e-4.
    redshift, h0, matter = 3.3, 67.66, 0.3111
    hubble = quad(lambda z: (matter * (1 + z) ** 3 + 1 - matter) ** -0.5, 0, redshift)[
        0
    ]
    centimetres = (1 + redshift) * 299_792.458 / h0 * hubble * 3.0856776e24
    expected = 4 * np.pi * centimetres**2 * 4e-18 / 10**41.27
    found = star_formation_rate(4e-18 * FLUX, redshift=redshift)
    assert found.unit == u.Msun / u.yr
    assert found.value == pytest.approx(expected, rel=5e-3)


def test_hbeta_and_halpha_of_the_same_gas_agree():
    pyneb = pytest.importorskip("pyneb")
    law = pyneb.RedCorr(E_BV=0.3, R_V=4.05, law="Cal00")
    seen = {
        "Halpha": 2.87e-18 / float(law.getCorr(6564.6)),
        "Hbeta": 1e-18 / float(law.getCorr(4862.7)),
    }
    rates = [
        star_formation_rate(flux * FLUX, redshift=0.7, line=line, ebv=0.3)
        for line, flux in seen.items()
    ]
    bare = star_formation_rate(2.87e-18 * FLUX, redshift=0.7)
    assert rates[0].value == pytest.approx(bare.value, rel=3e-3)
    assert rates[1].value == pytest.approx(bare.value, rel=3e-3)


def test_arrays_broadcast_and_units_are_converted():
    flux = np.array([[1.0], [2.0]]) * 1e-21 * u.W / u.m**2
    found = star_formation_rate(flux, redshift=2.0, magnification=[1.0, 2.0, 4.0])
    one = star_formation_rate(1e-18 * FLUX, redshift=2.0).value
    assert found.value == pytest.approx(one * np.outer([1, 2], [1, 0.5, 0.25]))


# --- errors -----------------------------------------------------------------------


@pytest.mark.parametrize("line", ["Halpha", "Hbeta"])
def test_the_error_is_that_of_draws(line):
    rng = np.random.default_rng(8)
    flux, ebv, lens, rho = 5e-19, 0.25, 2.1, 0.6
    sigma, dusty, lensing = 0.03 * flux, 0.012, 0.04
    draws = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 200_000).T
    fluxes, dusts = flux + sigma * draws[0], ebv + dusty * draws[1]
    lenses = rng.normal(lens, lensing, 200_000)
    rates = star_formation_rate(
        fluxes * FLUX, redshift=7.2, line=line, ebv=dusts, magnification=lenses
    )
    found = star_formation_error(
        flux * FLUX, sigma * FLUX, redshift=7.2, line=line, ebv=ebv, ebv_error=dusty,
        correlation=rho, magnification=lens, magnification_error=lensing,
    )  # fmt: skip
    assert found.unit == u.Msun / u.yr
    assert found.value == pytest.approx(rates.value.std(), rel=0.01)


def test_without_dust_the_relative_error_is_that_of_the_flux():
    flux, error = 47e-20 * FLUX, 3e-20 * FLUX
    rate = star_formation_rate(flux, redshift=7.883, line="Hbeta", magnification=2)
    found = star_formation_error(
        flux, error, redshift=7.883, line="Hbeta", magnification=2
    )
    assert (found / rate).value == pytest.approx(3 / 47)
    # Venturi et al. (2024), YD1: 2.85 ± 0.18.
    assert found.value == pytest.approx(0.18, abs=0.01)


# --- refusals ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"line": "OIII"}, "one of Halpha, Hbeta, not of 'OIII'; convert"),
        ({"redshift": 0.0}, "redshift is 0.0; give finite numbers above 0"),
        ({"redshift": [1.0, np.nan]}, "redshift is .*nan.*finite"),
        ({"magnification": -2.0}, "magnification is -2.0; give finite"),
        ({"ebv": -0.1}, "ebv is -0.1; dust does not brighten"),
    ],
)
def test_impossible_numbers_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        star_formation_rate(1e-18 * FLUX, **({"redshift": 6.3} | changes))


def test_an_impossible_correlation_is_named():
    with pytest.raises(ValueError, match=r"correlation is 1\.2; give a coef"):
        star_formation_error(1e-18 * FLUX, 1e-19 * FLUX, redshift=1.0, correlation=1.2)


def test_a_flux_density_is_refused():
    with pytest.raises(
        u.UnitConversionError, match=r"flux has the unit erg / .* give the"
    ):
        star_formation_rate(1e-18 * FLUX / u.AA, redshift=6.3)
