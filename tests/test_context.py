import numpy as np
import pytest
import xarray
from astropy.table import Table

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")

from metalgrad import cards, context, literature  # noqa: E402

DRAWS = np.random.default_rng(8).permutation(np.linspace(-1, 1, 1001))


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")


def posterior(unit="dex / kpc", redshift=7.114, **draws):
    variables = {name: (("chain", "draw"), [v]) for name, v in draws.items()}
    group = xarray.Dataset(variables)
    for name in group:
        group[name].attrs["units"] = unit
    root = xarray.Dataset(attrs={"redshift": redshift})
    return xarray.DataTree.from_dict({"/": root, "posterior": group})


def drawn(ax, label):
    """Points, (point, 2), and the ends of their vertical bars, of a legend's entry."""
    (found,) = [c for c in ax.containers if c.get_label() == label]
    line, _, bars = found.lines
    return line.get_xydata(), np.sort(bars[-1].get_segments(), axis=1)


def curve(ax, label):
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found.get_xydata()


def test_gradients_of_others_are_where_they_were_measured():
    ax = context.gradient_evolution()
    # Abstracts of Wang et al. (2022) and Vallini et al. (2024).
    (place,), (bar,) = drawn(ax, "GLASS (Wang+ 2022)")
    assert place.tolist() == [3.06, 0.165]
    assert bar[:, 1] == pytest.approx([0.142, 0.188])
    (place,), (bar,) = drawn(ax, "ALMA (Vallini+ 2024)")
    assert place.tolist() == [7.0, -0.03]
    assert bar[:, 1] == pytest.approx([-0.10, 0.04])
    # Garcia et al. (2025), arXiv:2503.03804.
    track = curve(ax, "TNG50 (Garcia+ 2025)")
    assert track[-1].tolist() == [8.0, -0.0756]
    assert len(track) == 9


def test_every_gradient_in_the_table_is_drawn():
    table = Table.read(cards.folder("data") / "published" / "gradients.ecsv")
    points = table[table["kind"] != "range"]
    ax = context.gradient_evolution()
    seen = np.concatenate([c.lines[0].get_xydata() for c in ax.containers])
    expected = np.c_[points["redshift"], points["gradient"]]
    assert sorted(map(tuple, seen)) == sorted(map(tuple, expected))
    inside = [ax.get_xlim(), ax.get_ylim()]
    for column, (low, high) in zip(seen.T, inside, strict=True):
        assert ((column >= low) & (column <= high)).all()


def test_a_posterior_is_placed_at_its_redshift():
    # A uniform on (-1, 1): the median is 0, and 68 % lie within 0.68 of it.
    fit = posterior(slope=0.1 * DRAWS - 0.05)
    ax = context.gradient_evolution({"mine": [fit, (6.0, (-0.2, 0.1, 0.3))]})
    places, bars = drawn(ax, "mine")
    assert places == pytest.approx(np.array([[7.114, -0.05], [6.0, -0.2]]))
    ends = np.array([[-0.118, 0.018], [-0.5, -0.1]])
    assert bars[:, :, 1] == pytest.approx(ends, abs=1e-6)
    assert ax.get_ylim()[0] < -0.5
    assert ax.get_legend().get_texts()[0].get_text() == "mine"


def test_cosmic_time_is_that_of_planck():
    ax = context.gradient_evolution()
    (upper,) = ax.child_axes
    ages = [float(label.get_text()) for label in upper.get_xticklabels()]
    # A flat universe of matter and Λ in closed form; radiation is 0.5 % at z = 7.
    matter, hubble_time = 0.3097, 977.8 / 67.66  # Planck18; Gyr
    ratio = np.sqrt((1 - matter) / matter) * (1 + upper.get_xticks()) ** -1.5
    expected = hubble_time * 2 / 3 / np.sqrt(1 - matter) * np.arcsinh(ratio)
    assert ages == pytest.approx(expected, rel=1e-2)
    assert min(ages) < 1 < 10 < max(ages)


def test_masses_and_metallicities_are_drawn():
    mass, level = 8.5 + 0.2 * DRAWS, 8.1 + 0.1 * DRAWS
    fit = posterior(level=level, central=level + 1)
    ax = context.mass_metallicity({"mine": [(posterior(log_mass=mass), fit)]})
    (place,), (bar,) = drawn(ax, "mine")
    assert place == pytest.approx([8.5, 8.1])
    assert bar[:, 1] == pytest.approx([8.1 - 0.068, 8.1 + 0.068], abs=1e-4)
    # Nakajima et al. (2023), Table 1: ERO_04590.
    places, _ = drawn(ax, "CEERS, GLASS, EROs (Nakajima+ 2023)")
    assert len(places) == 120
    assert [7.60, 7.26] in places.tolist()
    assert curve(ax, "JADES, z = 3 to 10 (Curti+ 2024)")[0, 1] == pytest.approx(
        7.72 + 0.17 * (ax.get_xlim()[0] - 8)
    )


@pytest.mark.parametrize(("redshift", "epoch"), [(8.0, 8), (6.1, 5), (0.3, 0)])
def test_simulations_are_those_of_the_nearest_epoch(redshift, epoch):
    ax = context.mass_metallicity(redshift=redshift)
    table = Table.read(
        cards.folder("data") / "published" / "mass_metallicity_simulations.ecsv"
    )
    rows = table[(table["simulation"] == "EAGLE") & (table["redshift"] == epoch)]
    found = curve(ax, f"EAGLE, z = {epoch} (Sharda+ 2026)")
    assert found.tolist() == np.c_[rows["log_mass"], rows["metallicity"]].tolist()


def test_rates_are_drawn_with_the_main_sequence():
    _, ax = matplotlib.pyplot.subplots()
    assert context.main_sequence(literature.venturi24("sfr"), ax=ax) is ax
    places, bars = drawn(ax, "BDF-3299")
    assert places.tolist() == [[7.90, 3.47], [8.21, 4.2], [7.62, 1.5]]
    assert bars[0, :, 1] == pytest.approx([3.34, 3.60])
    # It was fitted to z < 6 and masses above 10^8.5: solid there, dotted elsewhere.
    today = curve(ax, "main sequence, z = 0 (Popesso+ 2023)")
    assert np.nanmin(today[np.isfinite(today[:, 1]), 0]) == pytest.approx(8.5, abs=0.03)
    assert np.isnan(curve(ax, "main sequence, z = 8 (Popesso+ 2023)")[:, 1]).all()


def test_the_picture_grows_to_hold_a_galaxy():
    ax = context.mass_metallicity({"mine": [((11.2, 0.1), (9.3, 0.1))]})
    assert ax.get_xlim()[1] > 11.3
    assert ax.get_ylim()[1] > 9.4


@pytest.mark.parametrize(
    ("draw", "points", "complaint"),
    [
        (context.mass_metallicity, [8.5], "point of mine is 8.5; give a list of pairs"),
        (context.mass_metallicity, [(8.5, (8.1, -1))], "errors not negative"),
        (context.main_sequence, [(8.5, -0.3)], "mine has a star.*not their logarithms"),
        (
            context.gradient_evolution,
            [posterior("dex / R_e", slope=DRAWS)],
            "posterior of mine has a slope in dex / R_e.*kpc_per_arcsec",
        ),
        (
            context.gradient_evolution,
            [posterior(redshift=np.nan, slope=DRAWS)],
            "at redshift nan",
        ),
        (context.gradient_evolution, [posterior(level=DRAWS)], "a slope in none"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, points, complaint):
    with pytest.raises(ValueError, match=complaint):
        draw({"mine": points})
