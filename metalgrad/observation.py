"""What is observed, as a distribution: the data that every model conditions on."""

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints

from metalgrad.likelihood import LineLikelihood

TINY = 1e-12


class LineData(Distribution):
    """The whitened line fluxes of each spaxel, as a NumPyro distribution.

    With a ``clumpiness`` each spaxel may be brighter or fainter than ``flux`` in all
    lines alike, by a factor ``1 + clumpiness * normal`` that is integrated out.
    """

    support = constraints.real_vector

    def __init__(self, data: LineLikelihood, flux, noise_scale, clumpiness=None):
        self.data, self.flux, self.noise_scale = data, flux, noise_scale
        self.clumpiness = clumpiness
        super().__init__(jnp.shape(data.white)[:1], jnp.shape(data.white)[1:])

    def sample(self, key, sample_shape=()):
        """Draw whitened data; a row without information stays 0."""
        mean = jnp.einsum("srl,sl->sr", self.data.root, self.flux)
        if self.clumpiness is not None:
            key_clump, key = jax.random.split(key)
            clump = jax.random.normal(key_clump, (*sample_shape, len(mean), 1))
            mean = mean * (1 + self.clumpiness * clump)
        noise = jax.random.normal(key, (*sample_shape, *mean.shape), mean.dtype)
        told = jnp.any(jnp.asarray(self.data.root) != 0, axis=-1)
        return mean + told * self.noise_scale[self.data.row_complex] * noise

    def residuals(self, value):
        """Whitened residuals in units of the noise, (spaxel, line)."""
        mean = jnp.einsum("srl,sl->sr", self.data.root, self.flux)
        return (mean - value) / self.noise_scale[self.data.row_complex]

    def log_prob(self, value):
        """Log density of the spectra behind ``value``, (spaxel,)."""
        residual = self.residuals(value)
        chi2 = jnp.sum(residual**2, axis=-1)
        if self.clumpiness is None:
            return self.data.log_density(chi2, self.noise_scale)
        # Clumps widen the noise along the line of brighter and fainter, and only there.
        bright = jnp.einsum("srl,sl->sr", self.data.root, self.flux)
        bright = bright / self.noise_scale[self.data.row_complex]
        square = jnp.sum(bright**2, axis=-1)
        unit = bright / jnp.sqrt(square + TINY)[:, None]
        along = jnp.sum(unit * residual, axis=-1)
        across = residual - along[:, None] * unit  # subtracted before it is squared
        wider = self.clumpiness**2 * square
        chi2 = jnp.sum(across**2, axis=-1) + along**2 / (1 + wider)
        return self.data.log_density(chi2, self.noise_scale) - 0.5 * jnp.log1p(wider)
