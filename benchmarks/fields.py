"""Question: do Tables 3 and 4 of the paper come back from fields in which they hold?

For each system of Venturi et al. (2024) a mock NIRSpec PRISM field with all sources of
Table 3, at positions that are ours: the light of each is a disc, its lines are such
that the published aperture holds the published fluxes, blurring and neighbours
included, and their ratios change with radius as the calibrations say.  The continuum is
that of typical stars at an equivalent width of Hβ of 100 Å, or (``stars``) that of
model spectra of bagpipes of the published masses.  No code of metalgrad makes a flux;
the instrument, spectra and noise are those of ``independent.py``.

Run ``python benchmarks/fields.py classical [DRAWS]`` for apertures and annuli of that
many draws of the noise, ``... joint [DRAWS]`` for joint fits; what is finished is kept
in ``benchmarks/results/fields.jsonl``, ``... report`` prints what it comes to.
"""

import sys
import tempfile
import tomllib
import warnings
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import astropy.units as u
import independent
import kept
import numpy as np
from astropy.coordinates import SkyCoord

import metalgrad as mg
from metalgrad import inference
from metalgrad.classical import chi2_metallicity, classical_gradient
from metalgrad.noise import measure_correlation
from metalgrad.sizes import EffectiveRadius
from metalgrad.starformation import star_formation_rate

RESULTS = Path(__file__).parent / "results" / "fields.jsonl"
PIXEL, WIDTH, SLICES, LSF_SCALE = 0.05, 3.0, 25.0, 0.85
KEYS = ("kind", "system", "stars", "noise", "seed")
SETTINGS = {"warmup": 300, "draws": 300, "chains": 2}
WIDE = 0.7  # arcsec around the field's position, where the noise is measured
SIZE = EffectiveRadius(1.0, 0.0, 1.0, 0.0, None)  # not asked for here
WHITE = ((), (), ())
DRIZZLED = (independent.SPECTRAL, independent.SPATIAL, independent.SPATIAL)
NOISES = {"white": WHITE, "drizzled": DRIZZLED}
# Of each line of Table 3: wavelength [Å] of the blur, and how calibrations make it.
CHAINS = {
    "OII": (3728.5, ("R2",)),
    "NeIII": (3869.861, ("R2", "Ne3O2")),
    "Hbeta": (independent.HBETA, ()),
    "OIII": (independent.OIII, ("R3",)),
    "Halpha": (6564.632, ()),
    "SII": (6725.0, ("S2",)),
    "NII": (6585.273, ("N2",)),
}
# Case B on the red side of the Balmer limit, over Hβ, that `independent` leaves out:
# H13 to H16, data/lines.ecsv.
HIGH = {3735.436: 0.0240, 3723.004: 0.0192, 3713.030: 0.0156, 3704.913: 0.0129}
UNKNOWN = 8.0  # 12+log(O/H) where Table 3 has none
FAINT = 2 / 3  # of the limit: the most that an undetected line has
BALMER = 2.87  # Hα/Hβ without dust
K_HBETA, K_HALPHA = 4.597, 3.325  # Calzetti et al. (2000)

# Ours: east and north of the field's position [arcsec], half-light radius [arcsec],
# and the source on whose centre its gradient is centred, if it has one.
SYSTEMS = {
    "A2744": {
        "cards": ("a2744-yd4", "a2744-yd1"),
        "line_error": 3.0,
        "goal": 0.172,
        "slopes": {"YD4": 0.14, "YD1": -0.05},
        "places": {
            "YD4": (0.013, -0.017, 0.20, "YD4"),
            "YD6": (0.62, -0.35, 0.08, None),
            "YD6-[O III]-E": (1.10, -0.55, 0.08, None),
            "YD4-[O III]-W": (-0.64, -0.10, 0.08, None),
            "ZD1": (-0.90, -0.80, 0.08, None),
            "YD1": (0.15, 0.85, 0.19, "YD1"),
            "YD1-E": (0.66, 0.80, 0.08, None),
            "s1": (-0.42, 0.95, 0.08, None),
        },
    },
    "BDF-3299": {
        "cards": ("bdf-3299",),
        "line_error": 3.5,
        "goal": 0.155,
        "slopes": {"b": -0.03},
        "places": {
            "a": (-0.14, 0.145, 0.06, "b"),
            "b": (0.013, -0.017, 0.06, "b"),
            "c": (0.29, -0.04, 0.05, "b"),
        },
    },
    # b lies where a line of the published slope through a has b's metallicity.
    "COSMOS24108": {
        "cards": ("cosmos24108",),
        "line_error": 4.5,
        "goal": 0.205,
        "slopes": {"a": -0.03},
        "masks": {"a": (("[O III]-Ea", 0.25),)},
        "places": {
            "a": (0.013, -0.017, 0.15, "a"),
            "b": (-0.077, 0.505, 0.12, "a"),
            "c": (0.20, -0.74, 0.08, None),
            "[O III]-Ea": (0.60, -0.28, 0.08, None),
            "[O III]-Eb": (1.00, -0.52, 0.08, None),
        },
    },
}


# The field.


@cache
def cards(system):
    """Read the cards of a system: everything that they print, and their sources."""
    folder = independent.ROOT / "data" / "targets"
    found = [
        tomllib.loads((folder / f"{name}.toml").read_text())
        for name in SYSTEMS[system]["cards"]
    ]
    sources = {}
    for card in found:
        sources |= card["published"]["sources"]
    return found, sources


def centre_of(system):
    """Position of the field [deg]."""
    place = SkyCoord(*cards(system)[0][0]["position"], unit=("hourangle", "deg"))
    return place.ra.deg, place.dec.deg


def sky(system, name):
    """Position of a source."""
    (east, north, *_), (ra, dec) = SYSTEMS[system]["places"][name], centre_of(system)
    ra += east / 3600 / np.cos(np.radians(dec))
    return SkyCoord(ra, dec + north / 3600, unit="deg")


def level_of(source):
    """12+log(O/H) of a source."""
    return source["metallicity"][0] if "metallicity" in source else UNKNOWN


def log_ratio(ratios, metallicity):
    """Sum of the calibrations of a chain of ratios."""
    found = independent.read_calibration("curti23", " ".join(ratios))
    return sum(independent.mean_log_ratio(c, metallicity) for c in found.values())


def aperture_fluxes(source):
    """Fluxes in a source's aperture, by line: Table 3, and ours where it has limits."""
    level, flux = level_of(source), {}
    printed = {k: v for k, v in source.items() if k in CHAINS}
    for line in ("OIII", "Hbeta", "OII", "NeIII", "Halpha", "SII"):
        if line in printed and isinstance(printed[line], list):
            flux[line] = float(printed[line][0])
        elif line in printed or line == "Halpha":
            flux[line] = _faint(line, level, flux)
            if line in printed:
                flux[line] = min(flux[line], FAINT * printed[line]["limit"])
    flux["NII"] = flux["Halpha"] * 10 ** log_ratio(("N2",), level)
    flux.setdefault("SII", _faint("SII", level, flux))
    return flux


def _faint(line, level, flux):
    """Flux that the calibrations give a line."""
    hbeta = flux.get("Hbeta", flux["OIII"] / 10 ** log_ratio(("R3",), level))
    ratios = CHAINS[line][1]
    if line == "NeIII":
        return flux["OII"] * 10 ** log_ratio(("Ne3O2",), level)
    if line == "SII":
        return flux["Halpha"] * 10 ** log_ratio(ratios, level)
    if line == "Halpha":
        return BALMER * hbeta
    return hbeta * (10 ** log_ratio(ratios, level) if ratios else 1.0)


def reddening(flux):
    """E(B-V) of Hα/Hβ, 0 at least [mag]."""
    excess = np.log10(flux["Halpha"] / flux["Hbeta"] / BALMER)
    return max(2.5 / (K_HBETA - K_HALPHA) * excess, 0.0)


class Field:
    """A system without noise: its cube, and the truth of it."""

    def __init__(self, system, *, wave=independent.GRID, stars=True, names=None):
        """Make it up; ``names`` are the sources, all by default."""
        self.system, self.chosen = system, SYSTEMS[system]
        found, sources = cards(system)
        self.names = names or tuple(self.chosen["places"])
        self.sources = {name: sources[name] for name in self.names}
        self.aperture = found[0]["published"]["aperture"]
        self.scale = found[0]["kpc_per_arcsec"]
        self.magnification = found[0].get("magnification", 1.0)
        self.redshift = found[0]["redshift"]
        self.edges, self.bins = independent.wavelength_bins(*wave)
        self.grid = independent.fine_grid(WIDTH, PIXEL)
        self.fluxes = {n: aperture_fluxes(s) for n, s in self.sources.items()}
        self.ebv = {n: reddening(f) for n, f in self.fluxes.items()}
        self.light = {n: self._light(n) for n in self.names}
        self.metallicity = {n: self._metallicity(n) for n in self.names}
        self.maps = self._line_maps()
        self.cube = self._observe(stars)

    def offset(self, name):
        """Distance of the fine pixels from a source [arcsec]."""
        east, north, *_ = self.chosen["places"][name]
        return np.hypot(self.grid[0] - east, self.grid[1] - north)

    def _light(self, name):
        east, north, size, _ = self.chosen["places"][name]
        x, y = self.grid[0] - east, self.grid[1] - north
        shape = (size, 1.0, 0.8, 40.0)
        return independent.make_light(None, x, y, shape, (0.0, 0.0), 0, 0.0)

    def _metallicity(self, name):
        """12+log(O/H): Table 3's in the aperture, and a straight line of radius."""
        centre, level = self.chosen["places"][name][3], level_of(self.sources[name])
        if centre is None:
            return np.full_like(self.grid[0], level)
        slope, radius = self.chosen["slopes"][centre], self.offset(centre) * self.scale
        weight = self.light[name] * (self.offset(name) <= self.aperture)
        return level + slope * (radius - np.average(radius, weights=weight))

    def _blur(self, maps, wave):
        margin = self.grid[2]
        return independent.blur_and_bin(maps, wave, PIXEL, 1.0, SLICES, margin)

    def _apertures(self):
        """Spaxels in each source's aperture, (source, y, x)."""
        count = round(WIDTH / PIXEL)
        offset = (np.arange(count) - (count - 1) / 2) * PIXEL
        north, east = np.meshgrid(offset, -offset, indexing="ij")
        places = [self.chosen["places"][name] for name in self.names]
        return np.array(
            [np.hypot(east - e, north - n) <= self.aperture for e, n, *_ in places]
        )

    def _line_maps(self):
        """Make each line of each source, such that apertures hold the fluxes."""
        inside, made = self._apertures(), {name: {} for name in self.names}
        for line, (rest, ratios) in CHAINS.items():
            shapes = []
            for name in self.names:
                level = level_of(self.sources[name])
                known = np.clip(self.metallicity[name], 7.0, 8.9)
                change = log_ratio(ratios, known) - log_ratio(ratios, level)
                shapes.append(self.light[name] * 10 ** (change + 0 * known))
            wave = np.array(
                [rest * 1e-4 * (1 + s["redshift"]) for s in self.sources.values()]
            )
            seen = np.einsum("ayx,syx->as", inside, self._blur(np.array(shapes), wave))
            wanted = np.array([self.fluxes[name][line] for name in self.names])
            total = np.linalg.solve(seen, wanted)
            if (total < 0).any():
                raise ValueError(
                    f"{self.system}: neighbours outshine a source in {line}"
                )
            for name, shape, flux in zip(self.names, shapes, total, strict=True):
                made[name][line] = shape * flux
            if line == "Hbeta":
                self.share = dict(zip(self.names, total / wanted, strict=True))
        return made

    def _observe(self, stars):
        cube = np.zeros((len(self.bins), *self.grid[0].shape), np.float32)
        for name, source in self.sources.items():
            level = self._stars(name) if stars else self._typical(name)
            cube += (level * self.share[name])[:, None, None] * self.light[name]
            for rest, flux in self._lines(name):
                observed = np.array([[rest * 1e-4 * (1 + source["redshift"])]])
                independent.add_line(cube, self.edges, flux, observed, LSF_SCALE)
        return self._blur(cube, self.bins)

    def _lines(self, name):
        """Wavelength [Å] and map of every line; others by case B, as dusty."""
        maps = self.maps[name]
        high = {rest: (rest, "Hbeta", share) for rest, share in HIGH.items()}
        for line, (rest, parent, share) in (independent.LINES | high).items():
            if line == "Halpha":
                yield rest, maps["Halpha"]
            elif parent == "Hbeta":
                excess = independent.calzetti(rest) - K_HBETA
                yield (
                    rest,
                    maps["Hbeta"] * share * 10 ** (-0.4 * self.ebv[name] * excess),
                )
            elif parent == "OIII_4364":
                yield rest, maps["OIII"] * 0.015
            else:
                yield rest, maps[parent] * share

    def _typical(self, name, equivalent_width=100.0):
        redshift = self.sources[name]["redshift"]
        level = self.fluxes[name]["Hbeta"] / (equivalent_width * 1e-4 * (1 + redshift))
        return level * independent.continuum(
            self.bins, redshift, -2.0, LSF_SCALE, starry=True
        )

    def _stars(self, name, steps=(0.0, 0.0, 0.3), living=0.8):
        """Stars of the published mass, without nebular light, by bagpipes."""
        from metalgrad import synthesis
        from metalgrad.lsf import prism

        pipes, source = synthesis.load(), self.sources[name]
        history = {f"dsfr{i}": step for i, step in enumerate(steps, start=1)}
        history |= {"massformed": source["log_mass"][0] - np.log10(living)}
        history |= {"metallicity": 0.2, "bin_edges": list(synthesis.AGE_EDGES)}
        parts = {"redshift": source["redshift"], "continuity": history}
        parts["dust"] = {"type": "Calzetti", "Av": 0.44 * 4.05 * self.ebv[name]}
        parts["R_curve"] = synthesis.resolution_curve(prism(), LSF_SCALE)
        with synthesis.quiet():
            model = pipes.model_galaxy(parts, spec_wavs=self.bins * 1e4)
        return model.spectrum[:, 1] * 1e24 * self.magnification

    def true_slope(self, centre, radius):
        """Straight line through the true metallicities, by light, less the masks."""
        distance = self.offset(centre)
        inside = distance <= radius
        for name, reach in self.chosen.get("masks", {}).get(centre, ()):
            inside &= self.offset(name) > reach
        light = np.array([self.maps[n]["Hbeta"][inside] for n in self.names])
        values = np.array([self.metallicity[n][inside] for n in self.names])
        mean, weight = (light * values).sum(0) / light.sum(0), light.sum(0)
        x = distance[inside] * self.scale
        return float(np.polyfit(x, mean, 1, w=np.sqrt(weight))[0])

    def write(self, path, noise, seed):
        """Write the cube with a draw of noise; without, if the seed is None."""
        correlations = NOISES[noise]
        depth = self.chosen["line_error"], correlations, LSF_SCALE
        sigma = independent.noise_level(self.bins, self.edges, PIXEL, *depth)
        rng, data = np.random.default_rng(seed), self.cube
        if seed is not None:
            data = independent.add_noise(rng, data, sigma, correlations, 0.0)
        error = np.broadcast_to(sigma, data.shape)
        lost, truth = np.zeros(data.shape, bool), {"system": self.system}
        independent.write_s3d(
            path, data, error, lost, self.bins, PIXEL, centre_of(self.system), truth
        )


# The pipelines.


def observe(field, noise, seed):
    """Draw the noise; return the cube as metalgrad reads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mock_s3d.fits"
        field.write(path, noise, seed)
        return mg.Cube.read(path)


def aim(field, centre):
    """Target of a gradient: its card's numbers, and the mock's place and masks."""
    folder = dict(zip(("YD4", "YD1"), SYSTEMS["A2744"]["cards"], strict=True))
    card = mg.load_target(folder.get(centre, field.chosen["cards"][0]))
    masks = field.chosen.get("masks", {}).get(centre, ())
    masks = tuple((sky(field.system, name), reach) for name, reach in masks)
    return replace(card, position=sky(field.system, centre), masks=masks)


def measure_sources(field, cube):
    """Lines, dust, rate and metallicity of every source, in its aperture."""
    first = mg.load_target(field.chosen["cards"][0])
    wide = mg.Spaxels.select(cube, replace(first, radius=WIDE, masks=()))
    correlation = measure_correlation(wide).spectral
    rows, card = {}, mg.load_calibration("curti23")
    for name, source in field.sources.items():
        target = replace(
            first, position=sky(field.system, name), redshift=source["redshift"],
            radius=field.aperture, masks=(),
        )  # fmt: skip
        sums = mg.add_up(mg.Spaxels.select(cube, target))
        fit = mg.fit_lines(
            sums, integrated=True, rescale=True, correlation=correlation
        )  # fmt: skip
        found = chi2_metallicity(fit.flux, fit.error, card)
        line = "Halpha" if "Halpha" in fit.flux else "Hbeta"
        flux = fit.flux[line][0] * 1e-20 * u.erg / u.s / u.cm**2
        settings = {"redshift": source["redshift"], "line": line}
        settings |= {"magnification": field.magnification}
        rates = [
            float(star_formation_rate(flux, ebv=ebv, **settings).value)
            for ebv in (found.ebv[0], field.ebv[name])
        ]
        rows[name] = {
            "flux": {k: round(float(v[0]), 3) for k, v in fit.flux.items()},
            "error": {k: round(float(v[0]), 3) for k, v in fit.error.items()},
            "noise": round(float(fit.noise[0]), 3),
            "ebv": round(float(found.ebv[0]), 4),
            "rates": np.round(rates, 4).tolist(),
            "metallicity": [
                round(float(getattr(found, k)[0]), 4)
                for k in ("metallicity", "lower", "upper")
            ],
        }
    return rows


def measure_annuli(field, cube, centre):
    """Slope of the annuli, its error, that of independent points, and the points."""
    found = mg.annular_gradient(
        cube, aim(field, centre), goal_fwhm=field.chosen["goal"], slice_angle=SLICES,
        size=SIZE, clip=False,
    )  # fmt: skip
    points = found.metallicity.metallicity
    alone = classical_gradient(found.radius, points, found.error)
    slopes = found.line.slope, found.line.slope_error, alone.slope_error
    return {
        "slope": np.round(slopes, 5).tolist(),
        "radius": found.radius.round(4).tolist(),
        "metallicity": points.round(4).tolist(),
        "error": found.error.round(4).tolist(),
    }


def measure_jointly(field, cube, centre, seed):
    """Slope of the joint fit, its standard deviation, and how the chains did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.ConvergenceWarning)  # short chains
        posterior = mg.fit(
            mg.load_model("gradient"), mg.Spaxels.select(cube, aim(field, centre)),
            seed=seed, progress=False, **SETTINGS,
        )  # fmt: skip
    slope = posterior.posterior["slope"].values
    return {
        "slope": [float(slope.mean()), float(slope.std())],
        "quantiles": np.quantile(slope, (0.025, 0.16, 0.5, 0.84, 0.975)).tolist(),
        "means": slope.mean(axis=1).tolist(),
        "divergences": int(posterior.sample_stats["diverging"].sum()),
        **SETTINGS,
    }


def classical(field, noise, seed):
    """Everything classical of one draw."""
    cube = observe(field, noise, seed)
    slopes = {c: measure_annuli(field, cube, c) for c in field.chosen["slopes"]}
    return {"sources": measure_sources(field, cube), "annuli": slopes}


def joint(field, noise, seed):
    """Joint fits of one draw."""
    cube = observe(field, noise, seed)
    centres = field.chosen["slopes"]
    return {"joint": {c: measure_jointly(field, cube, c, seed) for c in centres}}


# What it comes to.


def report(rows):
    """Print how fluxes, rates, metallicities and slopes agree with the truth."""
    done = [row for row in rows if row["kind"] == "classical"]
    for stars, noise in ((False, "white"), (False, "drizzled"), (True, "drizzled")):
        some = [r for r in done if (r["stars"], r["noise"]) == (stars, noise)]
        kept_rows = [row for row in some if row["seed"] is not None]
        print(f"{'stars of the masses' if stars else 'typical stars'}, {noise} noise")
        if quiet := [row for row in some if row["seed"] is None]:
            report_quiet(quiet)
        for system in SYSTEMS:
            if chosen := [row for row in kept_rows if row["system"] == system]:
                report_sources(system, chosen)
                report_slopes(system, chosen, rows)


def pulls(row):
    """Yield line, deviation over error, and relative deviation, of every flux."""
    for name, source in cards(row["system"])[1].items():
        found, truth = row["sources"][name], aperture_fluxes(source)
        for line in (line for line in truth if line in found["flux"]):
            off = found["flux"][line] - truth[line]
            yield name, line, off / found["error"][line], off / truth[line]


def report_quiet(rows):
    """Print what is found without noise."""
    for row in rows:
        off = {(n, line): share for n, line, _, share in pulls(row)}
        for line in CHAINS:
            values = [v for (_, one), v in off.items() if one == line]
            if values:
                span = f"{min(values):+.1%} to {max(values):+.1%}"
                print(f"  {row['system']} without noise, {line}: {span}")
        rates = [
            row["sources"][n]["rates"][0] / s["sfr"][0]
            for n, s in cards(row["system"])[1].items() if isinstance(s["sfr"], list)
        ]  # fmt: skip
        print(f"    rates over Table 3's: {min(rates):.3f} to {max(rates):.3f}")
        for centre, found in row["annuli"].items():
            print(f"    slope of {centre} without noise: {found['slope'][0]:+.3f}")


def report_sources(system, rows):
    """Print χ² of the fluxes, and how rates and metallicities compare."""
    off = [np.array([pull for *_, pull, _ in pulls(row)]) for row in rows]
    each = [np.mean(values**2) for values in off]
    span = f"{min(each):.2f} to {max(each):.2f} a draw, mean pull {np.mean(off):+.2f}"
    print(f"  {system}, {len(rows)} draws: χ² per flux {np.mean(each):.2f}, {span}")
    rates, known, away = [], [], []
    for row, (name, source) in product(rows, cards(system)[1].items()):
        found = row["sources"][name]
        if isinstance(source["sfr"], list):
            rates.append(found["rates"][0] / source["sfr"][0])
            known.append(found["rates"][1] / source["sfr"][0])
        if "metallicity" in source:
            value, plus, minus = source["metallicity"]
            error = plus if found["metallicity"][0] > value else minus
            away.append((found["metallicity"][0] - value) / error)
    low, middle, high = np.quantile(rates, (0.16, 0.5, 0.84))
    print(f"    rate over Table 3's: {middle:.2f}, 68 % from {low:.2f} to {high:.2f};")
    print(f"    {np.median(known):.2f} with the true dust")
    within, median = np.mean(np.abs(away) < 1), np.nanmedian(away)
    print(f"    metallicity within its errors: {within:.0%}, median {median:+.2f}")


def report_slopes(system, rows, every):
    """Print bias, scatter and errors of the slopes, and the joint fits beside them."""
    beside = [
        row["joint"] for row in every
        if row["kind"] == "joint" and row["system"] == system
        and not rows[0]["stars"] and row["noise"] == rows[0]["noise"]
    ]  # fmt: skip
    for centre in SYSTEMS[system]["slopes"]:
        found = np.array([row["annuli"][centre]["slope"] for row in rows])
        truth = true_slope(system, rows[0]["stars"], centre)
        bias, scatter = found[:, 0].mean() - truth, found[:, 0].std()
        drawn, alone = np.median(found[:, 1]), np.median(found[:, 2])
        print(f"    annuli of {centre}, true {truth:+.3f}: bias {bias:+.3f}, scatter")
        print(f"      {scatter:.3f}, error {drawn:.3f}, of lone points {alone:.3f}")
        if beside:
            mean, sd = np.mean([fit[centre]["slope"] for fit in beside], axis=0)
            bias, ratio = mean - truth, sd / drawn
            print(f"      joint ({len(beside)}): bias {bias:+.3f}, sd {sd:.3f}, ratio")
            print(f"      of the intervals {ratio:.2f}")


def true_slope(system, stars, centre):
    """Slope of a field's truth."""
    field = make(system, stars)
    return field.true_slope(centre, aim(field, centre).radius)


@cache
def make(system, stars):
    """Make a field up, once."""
    return Field(system, stars=stars)


def main(kind="report", draws=24, *systems):
    """Do what is missing of a kind, or say what all of it comes to."""
    if kind == "report":
        return report(kept.read(RESULTS))
    inference.FORETOLD = 16  # leave-one-out, a third of the time, is not asked for
    done = {tuple(row[key] for key in KEYS) for row in kept.read(RESULTS)}
    drawn = [(False, "drizzled"), (False, "white"), (True, "drizzled")]
    cases = [(stars, "drizzled", None) for stars in (False, True)]
    cases += [(*case, seed) for case, seed in product(drawn, range(int(draws)))]
    if kind == "joint":
        cases = [(False, "drizzled", seed) for seed in range(int(draws))]
    for case, system in product(cases, systems or SYSTEMS):
        if (kind, system, *case) in done:
            continue
        field, run = make(system, case[0]), {"classical": classical, "joint": joint}
        found = run[kind](field, *case[1:])
        kept.add(RESULTS, dict(zip(KEYS, (kind, system, *case), strict=True)) | found)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
