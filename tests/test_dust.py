"""Attenuation against the collected values of Calzetti et al. (2000)."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from metalgrad import dust, lines

# λ [µm], doublets at the middle, and k(λ) as three public codes have it
VALUES = {
    "OII": (0.37285, 5.856),
    "NeIII": (0.38699, 5.675),
    "Hdelta": (0.41029, 5.393),
    "Hgamma": (0.43417, 5.123),
    "Hbeta": (0.48627, 4.597),
    "OIII": (0.50082, 4.463),
    "Halpha": (0.65646, 3.325),
    "NII": (0.65853, 3.312),
    "SII": (0.67255, 3.224),
}


@pytest.mark.parametrize("name", VALUES)
def test_curve_at_the_lines(name):
    wavelength, expected = VALUES[name]
    assert_allclose(dust.calzetti(wavelength), expected, atol=6e-4)
    # the strongest member of a doublet stands for it: 1e-3 µm or 0.005 in k at most
    assert_allclose(dust.calzetti(lines.wavelengths((name,))), expected, atol=5e-3)


def test_step_between_the_two_polynomials():
    below, above = dust.calzetti(np.array([0.63 - 1e-9, 0.63]))
    assert_allclose([below, above], [3.477, 3.502], atol=5e-4)


def test_visual_band_is_the_definition():
    # E(B-V) is k(B) - k(V), and k(V) is R_V: true to some percent of the fit
    blue, visual = dust.calzetti(np.array([0.44, 0.55]))
    assert_allclose(visual, dust.R_V, rtol=0.01)
    assert_allclose(blue - visual, 1.0, atol=0.05)


def test_bagpipes_curve_agrees():
    module = pytest.importorskip("bagpipes.models.dust_attenuation_model")
    wave = np.linspace(1300.0, 20000.0, 50)
    curve = module.dust_attenuation(wave, {"type": "Calzetti", "Av": 1.0})
    # its blue piece has 2.695 where the paper has 2.659
    assert_allclose(dust.calzetti(wave * 1e-4) / dust.R_V, curve.A_cont, rtol=1e-2)


@pytest.mark.parametrize("wave", [0.11, 2.3])
def test_outside_its_range_it_is_refused(wave):
    with pytest.raises(
        ValueError, match=r"from 0\.12 to 2\.2 µm in the rest frame; got"
    ):
        dust.calzetti(np.array([0.5, wave]))


@pytest.mark.parametrize("reddening", [0.0, 0.31])
def test_balmer_decrement(reddening):
    balmer = ("Halpha", "Hbeta", "Hgamma", "Hdelta")
    intrinsic = np.array([lines.case_b()[name] for name in balmer])
    dimmed = intrinsic * 10 ** (
        -0.4 * reddening * dust.calzetti(lines.wavelengths(balmer))
    )
    # Hα/Hβ gives the reddening back by the closed form of every textbook.
    decrement = dimmed[0] / dimmed[1]
    curve = dust.calzetti(lines.wavelengths(("Hbeta", "Halpha")))
    found = 2.5 / (curve[0] - curve[1]) * np.log10(decrement / 2.8632)
    assert_allclose(found, reddening, atol=1e-12)
    assert np.all(np.diff(dimmed / intrinsic) <= 0)
