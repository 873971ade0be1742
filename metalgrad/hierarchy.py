"""A NumPyro model of a galaxy, split into its parameters and its departures.

Given the galaxy's parameters ``theta`` the departures ``z`` are standard normals before
the data.  They fall into *units* that are independent of each other, given ``theta``:
the spaxels, each with its own few, or, where neighbours share structure, all of them
together in one.  Everything that makes inference fast rests on that split: the mode and
the curvature of the posterior, its marginal over a unit's latents, the start and the
metric of the sampler.  Both are unconstrained; all densities are in nats.
"""

from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import ExpandedDistribution, Independent, Normal
from numpyro.distributions.transforms import IdentityTransform

from metalgrad import roles
from metalgrad.priors import DECENTERED
from metalgrad.supports import refuse_fixed, unconstrain

SIGNED = "_signed"  # ends the name of an amplitude whose sign is free
UNITS = "spaxel", "wave"  # plates of departures
LEVELS = "level", "source_level"  # the galaxy's sites that tell branches apart
LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The joint density of a model and its data as a function of ``theta`` and ``z``.

    Attributes
    ----------
    model : callable
        A NumPyro model of one argument, the data.
    data : LineLikelihood
        Data of the shape at hand; the densities take their arrays as an argument.
    galaxy : dict of str to tuple
        Shape and support transform of each of the galaxy's sites.
    unit : dict of str to tuple
        Shape, without the axis of units, of each site of departures.
    coupled : bool
        Whether all spaxels are one unit.
    derived : tuple of str
        Deterministic sites of one number, or of one for each ratio: what is fixed, or
        follows from the others.
    leading : int, optional
        Which of a spaxel's latents sets the means of others.
    bent : int, optional
        Of which data tell the softplus of its sum and not the sum.
    ahead : tuple of str
        Sites of which fluxes are no product of powers, if all spaxels are one unit.
    """

    model: object
    data: object
    galaxy: dict
    unit: dict
    coupled: bool
    derived: tuple[str, ...] = ()
    leading: int | None = None
    bent: int | None = None
    ahead: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, int]:
        """Lengths of ``theta`` and of one unit's ``z``."""
        galaxy = sum(prod(shape) for shape, _ in self.galaxy.values())
        return galaxy, sum(prod(shape) for shape in self.unit.values())

    @property
    def galaxy_names(self) -> list[str]:
        """Names of the galaxy's sites as the record has them: what they stand for."""
        return [n.removesuffix(SIGNED).removesuffix(DECENTERED) for n in self.galaxy]

    @property
    def is_signed(self) -> np.ndarray:
        """Which of ``theta`` are amplitudes whose sign is free."""
        return self._mark(name.endswith(SIGNED) for name in self.galaxy)

    @property
    def is_level(self) -> np.ndarray:
        """Which of ``theta`` are levels of metallicity, wherever in the galaxy."""
        return self._mark(name in LEVELS for name in self.galaxy)

    @property
    def is_plain(self) -> np.ndarray:
        """Which of ``theta`` are drawn as they stand."""
        each = (transform for _, transform in self.galaxy.values())
        plain = [getattr(t, "base_transform", t) for t in each]
        return self._mark(isinstance(t, IdentityTransform) for t in plain)

    def _mark(self, sites):
        sizes = [prod(shape) for shape, _ in self.galaxy.values()]
        return np.repeat(list(sites), sizes)

    def unpack(self, theta: Float[Array, " galaxy"], z: Float[Array, "unit latent"]):
        """Return the sites' values and the log volume change of their transforms."""
        values, log_volume, start = {}, 0.0, 0
        for name, (shape, transform) in self.galaxy.items():
            piece = theta[start : start + prod(shape)].reshape(shape)
            values[name] = transform(piece)
            change = transform.log_abs_det_jacobian(piece, values[name])
            log_volume += jnp.sum(change)
            start += prod(shape)
        start = 0
        for name, shape in self.unit.items():
            piece = z[:, start : start + prod(shape)]
            values[name] = piece.reshape(*(() if self.coupled else (len(z),)), *shape)
            start += prod(shape)
        return values, log_volume

    def densities(self, arrays, theta, z):
        """Log densities: of the galaxy, and of each unit's data and latents.

        Parameters
        ----------
        arrays : dict, `LineLikelihood.arrays`
        theta : array, (galaxy,)
        z : array, (unit, latent)

        Returns
        -------
        galaxy : float
            Prior of ``theta``.
        unit : array, (unit,)
            Likelihood times the prior of ``z``.
        """
        values, log_volume = self.unpack(theta, z)
        trace = self._trace(arrays, values)
        galaxy = log_volume + sum(
            jnp.sum(trace[name]["fn"].log_prob(trace[name]["value"]))
            for name in self.galaxy
        )
        observed = trace["data"]["fn"].log_prob(trace["data"]["value"])
        if self.coupled:
            observed = jnp.sum(observed, keepdims=True)
        latent = 0.5 * jnp.einsum("sd,sd->s", z, z) + 0.5 * z.shape[1] * LOG_2PI
        return galaxy, observed - latent

    def pointwise(self, arrays, theta, z) -> Float[Array, " spaxel"]:
        """Log likelihood of each spaxel, given all latents."""
        return self.seen(arrays, theta, z).log_prob(arrays["white"])

    def _trace(self, arrays, values):
        data = self.data.with_arrays(arrays)
        return handlers.trace(handlers.substitute(self.model, values)).get_trace(data)

    def residuals(self, arrays, theta, z):
        """Whitened residuals of each spaxel's line fluxes, (spaxel, line)."""
        return self.seen(arrays, theta, z).residuals(arrays["white"])

    def seen(self, arrays, theta, z):
        """Return the distribution of the data, given everything."""
        return self._trace(arrays, self.unpack(theta, z)[0])["data"]["fn"]

    def _middle(self, arrays, theta):
        """Trace the model where nothing departs."""
        units = 1 if self.coupled else len(arrays["white"])
        values, _ = self.unpack(theta, jnp.zeros((units, self.sizes[1])))
        return self._trace(arrays, values)

    def locate(self, arrays, theta, z):
        """Mean and amplitude of what each latent of a spaxel is a departure of.

        A model tells them by deterministic sites ``NAME_mean`` and ``NAME_amplitude``,
        (spaxel, width); where it does not they are 0.

        Returns
        -------
        mean, amplitude : array, (spaxel, latent)
        """
        values, _ = self.unpack(theta, z)
        trace, found = self._trace(arrays, values), []
        for kind in ("mean", "amplitude"):
            told = [
                trace.get(f"{name}_{kind}", {"value": jnp.zeros((len(z), prod(shape)))})
                for name, shape in self.unit.items()
            ]
            found.append(jnp.concatenate([site["value"] for site in told], axis=1))
        return tuple(found)

    def potential(self, arrays, theta, z):
        """Negative log of the joint density."""
        galaxy, spaxel = self.densities(arrays, theta, z)
        return -(galaxy + jnp.sum(spaxel))

    def peaks(self, arrays, theta):
        """Log prior of the galaxy's normal sites at their middles, summed.

        Of a normal whose width is latent it grows without bound as that shrinks, and
        the density of a normal at its middle with it: a mode, but without any volume.
        """
        total = jnp.zeros(())
        for law, base in self._laws(self._middle(arrays, theta)):
            if base is not None:
                total += law.log_prob(jnp.broadcast_to(base.loc, law.shape())).sum()
        return total

    def scales(self, arrays, theta) -> tuple:
        """How wide priors are: of the galaxy's normals, and of amplified departures.

        A model tells the latter by deterministic sites ``NAME_amplitude``, (wave,
        column); where it does not they are 1.

        Returns
        -------
        mean, width : array, (galaxy,)
            Of the galaxy's normal priors; of what has another the width is 0.
        amplitude : array, (latent,)
            Of a unit's departures, in the order of ``z``.
        """
        trace = self._middle(arrays, theta)
        found = {name: [jnp.zeros(0)] for name in ("loc", "scale", "amplitude")}
        for law, base in self._laws(trace):
            for name in ("loc", "scale"):
                told = 0.0 if base is None else getattr(base, name)
                found[name].append(jnp.ravel(jnp.broadcast_to(told, law.shape())))
        for name, shape in self.unit.items():
            site = trace.get(f"{name}_amplitude", {"value": 1.0})
            whole = jnp.broadcast_to(site["value"], (shape[0], prod(shape[1:])))
            found["amplitude"].append(jnp.ravel(whole))
        return tuple(map(jnp.concatenate, found.values()))

    def _laws(self, trace):
        """Prior of each of the galaxy's sites, and the normal behind it or None."""
        for law in (trace[name]["fn"] for name in self.galaxy):
            base = law
            while isinstance(base, ExpandedDistribution | Independent):
                base = base.base_dist  # within a plate, or to_event
            yield law, base if isinstance(base, Normal) else None

    def sites(self, arrays, theta, z) -> dict:
        """Every latent and deterministic site of the model at one point."""
        trace = self._trace(arrays, self.unpack(theta, z)[0])
        return {
            name: site["value"]
            for name, site in trace.items()
            if site["type"] == "deterministic"
            or (site["type"] == "sample" and not site["is_observed"])
        }


def split(model, data) -> Hierarchy:
    """Trace ``model`` once and sort its latent sites into galaxy and units.

    Parameters
    ----------
    model : callable
        A NumPyro model of one argument.
    data : LineLikelihood
        As `Model.prepare` returns it.

    Raises
    ------
    ValueError
        If a site in ``plate("spaxel")`` or ``plate("wave")`` is not a standard normal,
        there are sites in both, a site is fixed but not deterministic, or one other
        than ``data`` is observed.
    """
    data = data.with_arrays(data.arrays)
    seen = {}

    def look():
        seen.update(
            handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(data)
        )

    jax.eval_shape(look)
    galaxy, found = {}, {frame: {} for frame in UNITS}
    for name, site in seen.items():
        if site["type"] != "sample" or name == "data":
            continue
        if site["is_observed"]:
            raise ValueError(
                f"site {name} is observed or a factor, but only the site data may be; "
                "put what the model must match into the distribution of data"
            )
        refuse_fixed(name, site["fn"])
        shape = np.shape(site["value"])
        frames = {frame.name for frame in site["cond_indep_stack"]} & {*UNITS}
        for frame in frames:
            roles.check_standard_normal(name, site["fn"], shape)
            found[frame][name] = shape[1:] if frame == "spaxel" else shape
        if not frames:
            galaxy[name] = (shape, unconstrain(site["fn"]))
    if all(found.values()):
        raise ValueError(
            f"sites {', '.join(found['spaxel'])} are drawn spaxel by spaxel and "
            f"{', '.join(found['wave'])} as waves; draw all of them by one canvas"
        )
    coupled = bool(found["wave"])
    derived = tuple(name for name, site in seen.items() if roles.is_derived(site))
    unit = found["wave"] or found["spaxel"]
    special = roles.find_special(unit, seen, coupled=coupled)
    return Hierarchy(model, data, galaxy, unit, coupled, derived, **special)
