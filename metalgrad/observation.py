"""What is observed, as a distribution: the data that every model conditions on."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints

from metalgrad.likelihood import LineLikelihood


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
        data = replace(self.data, white=value)
        plain = data.log_likelihood(self.flux, self.noise_scale)
        if self.clumpiness is None:
            return plain
        bright = jnp.einsum("srl,sl->sr", self.data.root, self.flux)
        bright = self.clumpiness * bright / self.noise_scale[self.data.row_complex]
        along = jnp.sum(bright * self.residuals(value), axis=-1)
        spread = 1 + jnp.sum(bright**2, axis=-1)
        return plain + 0.5 * along**2 / spread - 0.5 * jnp.log(spread)
