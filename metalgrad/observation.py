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
        mean = self._mean()
        if self.clumpiness is not None:
            key_clump, key = jax.random.split(key)
            clump = jax.random.normal(key_clump, (*sample_shape, len(mean), 1))
            mean = mean * (1 + self.clumpiness * clump)
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        noise = jax.random.normal(key, shape, mean.dtype)
        told = jnp.any(jnp.asarray(self.data.root) != 0, axis=-1)
        return mean + told * self.noise_scale[self.data.row_complex] * noise

    def residuals(self, value):
        """Whitened residuals in units of the noise, (spaxel, line)."""
        mean = self._mean()
        return (mean - value) / self.noise_scale[self.data.row_complex]

    def standardise(self, residual):
        """Divide whitened residuals by the noise that clumps add, (spaxel, line)."""
        if self.clumpiness is None:
            return residual
        unit, wider = self._clumps()
        along = jnp.sum(unit * residual, axis=-1, keepdims=True)
        # Along the line of brighter and fainter, and only there; what lies across is
        # subtracted before it is squared.
        return residual - along * unit + along / jnp.sqrt(1 + wider)[:, None] * unit

    def log_density_at(self, chi2):
        """Log density of data ``chi2`` away, in units of all noise, (spaxel,)."""
        density = self.data.log_density(chi2, self.noise_scale)
        if self.clumpiness is None:
            return density
        return density - 0.5 * jnp.log1p(self._clumps()[1])

    def log_prob(self, value):
        """Log density of the spectra behind ``value``, (spaxel,)."""
        if self.clumpiness is None:
            residual = self.residuals(value)
        else:  # what is far too bright has no part across, not even by rounding
            wider = self._clumps()[1]
            mean = self._bright() / jnp.sqrt(1 + wider)[:, None]
            scale = self.noise_scale[self.data.row_complex]
            residual = mean - self.standardise(value / scale)
        return self.log_density_at(jnp.sum(residual**2, axis=-1))

    def _bright(self):
        """Whitened fluxes in units of the noise, (spaxel, line)."""
        return self._mean() / self.noise_scale[self.data.row_complex]

    def _mean(self):
        """Whitened fluxes, (spaxel, line)."""
        return jnp.einsum("srl,sl->sr", self.data.root, self.flux)

    def _clumps(self):
        """Direction of brighter and fainter, and the variance that clumps add to it."""
        bright = self._bright()
        square = jnp.sum(bright**2, axis=-1)
        unit = bright / jnp.sqrt(square + TINY)[:, None]
        return unit, self.clumpiness**2 * square
