"""The model: how metallicity, dust and calibrations make the lines that we observe."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.nn import softplus
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from metalgrad import cards, dust, fields, lines
from metalgrad.calibrations import Calibration, load_calibration
from metalgrad.choice import choose_ratios, read_ratios, tell_ratios
from metalgrad.fields import load_field
from metalgrad.geometry import radius
from metalgrad.likelihood import LineLikelihood
from metalgrad.observation import LineData
from metalgrad.priors import Free, decenter, draw, parse_prior
from metalgrad.small import once
from metalgrad.textures import Smooth, Texture, load_texture

RATIOS = ("R3", "R2", "O3O2", "Ne3O2", "S2")
LN10 = float(np.log(10))  # exp(x ln 10) costs a quarter of 10**x
ANCHORS = ("OIII", "Halpha", "Hbeta")


@dataclass(frozen=True, eq=False)
class Model:
    """A galaxy whose lines follow from metallicity, dust and strong-line calibrations.

    Attributes
    ----------
    calibration : Calibration
    field : MetallicityField
    ratios : tuple of str
        Calibrated ratios in order of preference: one is used if the calibration has
        it and it sets a line of the data that none before it has set.
    free : dict of str to Free
        Ratios without calibration.  A line that no ratio sets is integrated out with a
        flat prior on its flux.
    rho : Distribution
        Prior of the share of the calibrations' variance that is common to the whole
        galaxy.
    reddening : Distribution
        Prior of the median E(B-V) of the galaxy's gas [mag].
    reddening_scatter : Distribution
        Prior of the scatter of ln E(B-V) between spaxels, below 1 mag (`dust.bend`).
    structure : tuple of float
        Of smooth light about an exponential disc: width of log10 brightness [dex], and
        length of its correlation [kpc].
    clumpiness : Distribution
        Prior of the scatter of single spaxels about smooth light [dex].
    texture : Texture
        How what varies within the galaxy varies from place to place.
    noise_scale : Distribution
        Prior of the true noise over the errors of the data, one per complex.
    attenuation : callable
        k(λ): rest-frame wavelength [µm] to magnitudes per E(B-V).
    name : str
    """

    calibration: Calibration
    field: fields.MetallicityField = fields.LinearGradient()
    ratios: tuple[str, ...] = RATIOS
    free: dict[str, Free] = dataclasses.field(default_factory=dict)
    rho: Distribution = dist.Uniform(0.0, 1.0)
    reddening: Distribution = dist.HalfNormal(0.3)
    reddening_scatter: Distribution = dist.HalfNormal(0.5)
    structure: tuple[float, float] = (0.5, 0.6)
    clumpiness: Distribution = dist.HalfNormal(0.5)
    texture: Texture = Smooth()
    noise_scale: Distribution = dist.LogNormal(0.0, 0.5)
    attenuation: Callable = dust.calzetti
    name: str = "custom"

    def __call__(self, data: LineLikelihood):
        """Sample one galaxy, conditioned on ``data`` (as `prepare` returns them)."""
        canvas, (ratios, free) = self.texture.sample(data), self.choose(data.lines)
        mean = self.field.sample(canvas.position, data.pivot)
        metallicity, log_ratio = self.sample_departures(canvas, mean, ratios, data)
        log_free = self.sample_free(canvas, free)
        tree = lines.grow_tree(ratios + free, lines.case_b()).select(data.lines)
        intrinsic = tree(jnp.concatenate([log_ratio, log_free], axis=-1))
        dimming = self.sample_dust(canvas, data.lines)
        emitted = self.sample_flux(canvas, data, intrinsic + dimming)
        flux = numpyro.deterministic("line_flux", canvas.see(emitted))
        noise_scale, clumpiness = self.sample_noise(data), self.sample_clumps(canvas)
        for name, values in (("metallicity", metallicity), ("log_ratio", log_ratio)):
            numpyro.deterministic(name, canvas.at_spaxels(values))
        with numpyro.plate("spaxel", len(data)):
            seen = LineData(data, flux, noise_scale, clumpiness)
            numpyro.sample("data", seen, obs=data.white)

    def sample_departures(self, canvas, mean, ratios, data):
        """Draw metallicities about their mean, and ratios about their calibration.

        A calibration's dispersion was measured between galaxies: a share ``rho`` of
        its variance is one draw for the whole galaxy, the rest differs within it.  With
        a single spaxel the two could not be told from each other.

        Returns
        -------
        metallicity : array, (cell,)
        log_ratio : array, (cell, ratio)
        """
        scatter = fields.sample_amplitude("scatter", self.field.scatter)
        rho = 1.0 if len(canvas) == 1 else draw("rho", self.rho)
        departure = self.sample_shared(rho, canvas, mean, ratios, data)
        is_shared = isinstance(rho, float) and rho == 1  # no latent that may come near
        about = mean[:, None] if is_shared else None  # or ratios are about it
        offset = canvas.draw("offset", amplitude=scatter, mean=about)
        metallicity = mean + scatter * offset
        log_ratio, dispersion = self.calibration.predict(ratios, metallicity)
        if not is_shared:
            about = self.calibration.untie(ratios, metallicity, log_ratio / dispersion)
            about, width = about + departure, jnp.sqrt(1 - rho)
            about = {"amplitude": width, "mean": about}
            local = canvas.draw("local", len(ratios), **about, coarse=True)
            departure = departure + width * local
        departure = self.calibration.tie(ratios, metallicity, departure)
        return metallicity, log_ratio + dispersion * departure

    def sample_shared(self, rho, canvas, mean, ratios, data) -> Float[Array, " ratio"]:
        """Draw what all of a galaxy departs by from its calibrations, as yet untied.

        Data may tell typical ratios well, and hardly which part is metallicity: so they
        are drawn, as far as told, about those of its mean metallicity: a valley of both
        bends.  That would tie all waves (three times the steps).
        """
        if isinstance(rho, float) and rho == 0:
            return jnp.zeros(len(ratios))
        with numpyro.plate("ratio", len(ratios)):
            if canvas.smooth or self.calibration.tied:
                law = dist.Normal(0.0, jnp.sqrt(rho))
                return numpyro.sample("shared_dispersion", law)
            found = self.calibration.predict(ratios, data.average(mean)[None])
            typical, dispersion = (values[0] for values in found)
            law = dist.Normal(typical, dispersion * jnp.sqrt(rho))
            told = (LN10 * dispersion) ** 2 * tell_ratios(ratios, data)
            shared = (decenter("typical_ratio", law, told) - typical) / dispersion
            return numpyro.deterministic("shared_dispersion", shared)

    def sample_free(self, canvas, ratios) -> Float[Array, "cell free"]:
        """Draw the log10 ratios that have no calibration."""
        if not ratios:
            return jnp.zeros((len(canvas), 0))
        means = [numpyro.sample(f"mean_{r}", self.free[r].mean) for r in ratios]
        scatter = np.array([self.free[r].scatter for r in ratios])
        log_ratio = jnp.broadcast_to(jnp.stack(means), (len(canvas), len(ratios)))
        if not (varied := np.flatnonzero(scatter)).size:
            return log_ratio
        about = {"amplitude": scatter[varied], "mean": log_ratio[:, varied]}
        offset = canvas.draw("free_offset", varied.size, **about, coarse=True)
        return log_ratio.at[:, varied].add(scatter[varied] * offset)

    def sample_dust(self, canvas, names) -> Float[Array, "cell line"]:
        """Draw E(B-V) of each cell; return what it adds to log10 fluxes."""
        median = draw("reddening", self.reddening)
        scatter = fields.sample_amplitude("reddening_scatter", self.reddening_scatter)
        mean, steep = dust.bend(median)
        about = {"amplitude": steep * scatter, "mean": mean, "bent": True}
        if canvas.smooth:  # spaxels that are told together tell E(B-V) itself
            about = {"amplitude": median * scatter}
        offset = canvas.draw("reddening_offset", **about, coarse=True)
        ebv = softplus(mean + steep * scatter * offset)
        numpyro.deterministic("ebv", canvas.at_spaxels(ebv))
        return -0.4 * ebv[:, None] * self.attenuation(lines.wavelengths(names))

    def sample_flux(self, canvas, data, relative) -> Float[Array, "cell line"]:
        """Draw the brightness of each cell; return the emitted line fluxes.

        What data tell best is a bright line, dimmed by dust: that, not intrinsic Hβ.
        """
        anchor = next((line for line in ANCHORS if line in data.lines), data.lines[0])
        start = data.lines.index(anchor)
        bright = data.typical[start] + self.sample_brightness(canvas, data.pivot)
        colour = once(relative - relative[:, start, None])  # not in loops over lines
        log_flux = bright[:, None] + colour
        return jnp.exp(LN10 * jnp.clip(log_flux, -30.0, 30.0))

    def sample_brightness(self, canvas, pivot) -> Float[Array, " cell"]:
        """Draw log10 of how bright each cell is: an exponential disc, and more.

        Where neighbours share structure the more is smooth, and well told; else it is
        what each spaxel has of its own, and how much that may be the galaxy must tell:
        faint spaxels that may be brighter than they are bias all ratios to the anchor.
        """
        if len(canvas) == 1:
            with numpyro.plate("spaxel", 1):
                return numpyro.sample("brightness_offset", dist.Normal())
        brightness = numpyro.sample("brightness", dist.Normal())
        fading = numpyro.sample("fading", dist.Normal())  # dex per pivot radius
        depth = radius(canvas.position) / jnp.maximum(pivot, 1e-6) - 1
        width, length = self.structure
        if not canvas.smooth:
            width = fields.sample_amplitude("clumpiness", self.clumpiness)
        mean = brightness - fading * depth
        about = {"length": length, "amplitude": width, "mean": mean[:, None]}
        return mean + width * canvas.draw("brightness_offset", **about)

    def sample_clumps(self, canvas):
        """Draw what single spaxels depart by from smooth light, all lines alike."""
        if not canvas.smooth:  # each has a brightness of its own already
            return None
        return LN10 * fields.sample_amplitude("clumpiness", self.clumpiness)

    def sample_noise(self, data) -> Float[Array, " complex"]:
        """Draw the noise scale of each complex; 1 where the data cannot tell it."""
        if not data.has_channels:
            return jnp.ones(len(data.complexes))
        with numpyro.plate("complex", len(data.complexes)):
            return numpyro.sample("noise_scale", self.noise_scale)

    def choose(self, names: tuple[str, ...]) -> tuple[tuple, tuple]:
        """Choose the ratios that lines ``names`` can form, as `choose_ratios`."""
        return choose_ratios(self.calibration, self.ratios, tuple(self.free), names)

    def prepare(self, data: LineLikelihood) -> LineLikelihood:
        """Integrate out the lines of ``data`` that no ratio sets or no spaxel measures.

        Raises
        ------
        ValueError
            If the data can form no ratio of the calibration, or not tell the field.
        """
        information = np.einsum("sll->l", data.precision())
        measured = np.array(data.lines)[information > 0]
        calibrated, free = self.choose(tuple(map(str, measured)))
        self.field.check(data.position)
        reached = lines.grow_tree(calibrated + free, lines.case_b()).lines
        return data.keep(tuple(name for name in measured if name in reached))


PRIORS = ("rho", "reddening", "reddening_scatter", "clumpiness", "noise_scale")


def load_model(name="gradient", *, calibration=None) -> Model:
    """Read a model card of ``models/`` or a TOML file of your own.

    The same cards give the same object, and what was compiled for it serves again.

    Parameters
    ----------
    name : str or path
    calibration : str or path, optional
        Another calibration than the card's.

    Raises
    ------
    ValueError
        If there is no such card, or a key of it is missing or unknown.
    """
    card = cards.read("models", name)
    optional = ("ratios", "free", "structure", "texture", *PRIORS)
    cards.check_keys(
        card, name, required=("summary", "calibration", "field"), optional=optional
    )
    calibration = calibration or card["calibration"]
    both = card, cards.read("calibrations", calibration)
    texts = (json.dumps(one, default=str) for one in both)
    return _build(str(name), str(calibration), *texts)


@lru_cache(maxsize=32)
def _build(name, calibration, card, _):
    """Build a model from the texts of its cards, once for each."""
    card = json.loads(card)
    parts = {key: parse_prior(key, card[key]) for key in PRIORS if key in card}
    if "ratios" in card:
        parts["ratios"] = read_ratios(name, card["ratios"])
    if "structure" in card:
        parts["structure"] = tuple(card["structure"])
    if "texture" in card:
        parts["texture"] = load_texture(name, card["texture"])
    free = {
        ratio: Free(parse_prior(ratio, entry["mean"]), entry.get("scatter", 0.0))
        for ratio, entry in card.get("free", {}).items()
    }
    return Model(
        load_calibration(calibration),
        field=load_field(name, card["field"]),
        free=free,
        name=Path(name).stem,
        **parts,
    )
