"""The patch of sky that light comes from: where it is emitted, where it is seen.

Light reaches a spaxel from its neighbours, so emission is laid out on a grid of cells
that reaches one PSF beyond the spaxels of the data.  What varies smoothly over the
grid is a sum of a few waves.
"""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.interpolate import make_interp_spline

from metalgrad.blur import tabulate
from metalgrad.waves import find_lit, is_lit, make_waves, thin

MARGIN = 0.2  # arcsec beyond the data: a FWHM of the PSF at the prism's red end
CELL = 0.1  # arcsec: the shortest wave has two, of coarse ones four
COMPACT = 0.15  # arcsec, ours: if half of the light is nearer, cells are spaxels; in
# mocks of R_e = 0.126" the slope came out 28 % too steep with cells of 0.1"
ARRAYS = ("position", "pick", "waves_y", "waves_x", "frequency", "rows", "columns")
ARRAYS += ("between_y", "between_x", "mean", "scales")


@dataclass(frozen=True, eq=False)
class Scene:
    """A grid of cells, the waves on it, and what the PSF does to its light.

    Attributes
    ----------
    position : array, (cell, 2)
        In the plane of the disc, from the centre [kpc]; cells are in the order of a
        raveled (cell_y, cell_x) map.
    pick : array of int, (spaxel,)
        Where each spaxel of the data lies in a raveled (y, x) map.
    waves_y, waves_x : array, (cell_y, m) and (cell_x, n)
        Sines, orthonormal over the box [kpc^-1/2].
    frequency : array, (m, n)
        Of each product of two waves [rad/kpc].
    rows, columns : array, (line, term, y, cell_y) and (line, scale, term, x, cell_x)
        What falls on a row, or column, of the map of what is emitted by one of cells,
        for each separable term of a line's PSF, and each of its widths.
    between_y, between_x : array, (y, cell_y) and (x, cell_x)
        Weights of linear interpolation.
    mean : array, (m, n)
        Mean of each product of two waves over the light that the data see.
    scales : array, (scale,)
        Widths of the PSF over the one given; a single one is that itself.
    """

    position: Float[Array | np.ndarray, "cell 2"]
    pick: Int[Array | np.ndarray, " spaxel"]
    waves_y: Float[Array | np.ndarray, "cell_y m"]
    waves_x: Float[Array | np.ndarray, "cell_x n"]
    frequency: Float[Array | np.ndarray, "m n"]
    rows: Float[Array | np.ndarray, "line term y cell_y"]
    columns: Float[Array | np.ndarray, "line scale term x cell_x"]
    between_y: Float[Array | np.ndarray, "y cell_y"]
    between_x: Float[Array | np.ndarray, "x cell_x"]
    mean: Float[Array | np.ndarray, "m n"]
    scales: Float[Array | np.ndarray, " scale"]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return len(self.waves_y), len(self.waves_x)

    @property
    def arrays(self) -> dict:
        """The arrays alone, to pass through a compiled function."""
        return {f"scene_{name}": jnp.asarray(getattr(self, name)) for name in ARRAYS}

    def with_arrays(self, arrays: dict) -> "Scene":
        """Return the same scene around other arrays (traced ones, say)."""
        return replace(self, **{name: arrays[f"scene_{name}"] for name in ARRAYS})

    @property
    def sizes(self) -> tuple:
        """Shapes of the arrays, which a compiled program depends on."""
        return tuple(np.shape(getattr(self, name)) for name in ARRAYS)

    @classmethod
    def blank(cls, sizes: tuple) -> "Scene":
        """Return a scene of some `sizes` on which nothing lies."""
        arrays = {name: np.zeros(s) for name, s in zip(ARRAYS, sizes, strict=True)}
        return cls(**arrays | {"pick": arrays["pick"].astype(int)})

    def keep(self, chosen: np.ndarray) -> "Scene":
        """Return the scene for some of the lines."""
        return replace(self, rows=self.rows[chosen], columns=self.columns[chosen])

    @property
    def coarse(self) -> "Scene":
        """The same scene with the longer waves alone."""
        m, n = map(thin, self.frequency.shape)
        return replace(
            self,
            waves_y=self.waves_y[:, :m],
            waves_x=self.waves_x[:, :n],
            frequency=self.frequency[:m, :n],
            mean=self.mean[:m, :n],
        )

    def root_density(self, length: Float[Array, ""] | float) -> Float[Array, "m n"]:
        """Amplitudes of the waves of a field of Matérn-3/2 correlation.

        The spectrum (Rasmussen & Williams 2006, Eq. 4.15) is cut where the waves end:
        structure finer than the PSF is left out.  A Gaussian correlation would let what
        a wave weighs fall exponentially with the length, and tie both in a funnel.

        Parameters
        ----------
        length : float
            Of the correlation [kpc].
        """
        decline = 1 + (length * self.frequency) ** 2 / 3
        return jnp.sqrt(2 * jnp.pi) * length * decline**-1.25

    def field(
        self, weights: Float[Array, "m n width"], amplitude: Float[Array, "m n"]
    ) -> Float[Array, "cell width"]:
        """Add up waves to fields without a mean over the light.

        That could not be told from the galaxy's typical value, so it is left to it.

        Parameters
        ----------
        weights : array, (m, n, width)
            Standard normals.
        amplitude : array, (m, n)
            As `root_density` returns them, for fields of unit variance.
        """
        scaled = amplitude[..., None] * weights
        rows = jnp.einsum("ym,mnw->ynw", self.waves_y, scaled)
        maps = jnp.einsum("xn,ynw->yxw", self.waves_x, rows)
        maps -= jnp.einsum("mn,mnw->w", self.mean, scaled)
        return maps.reshape(-1, weights.shape[-1])

    def see(
        self, flux: Float[Array, "cell line"], scale: Float[Array, ""] | float = 1.0
    ) -> Float[Array, "spaxel line"]:
        """Blur the maps of emitted lines; return what falls on the data's spaxels.

        Parameters
        ----------
        flux : array, (cell, line)
        scale : float
            Of the PSF's width, if it was laid out with several; kept within those.
        """
        columns = self.columns[:, 0]
        if len(self.scales) > 1:
            columns = jnp.einsum("s,lstxi->ltxi", self._between(scale), self.columns)
        maps = flux.T.reshape(-1, 1, *self.shape)
        seen = jnp.einsum("ltyi,ltxi->lyx", self.rows @ maps, columns)
        return seen.reshape(len(seen), -1)[:, self.pick].T

    def _between(self, scale):
        """Weights of a polynomial through all widths, in their logarithm (Lagrange)."""
        nodes = jnp.log(self.scales)
        x = jnp.clip(jnp.log(scale), nodes[0], nodes[-1])
        own = jnp.eye(len(nodes), dtype=bool)
        part = (x - nodes) / jnp.where(own, 1.0, nodes[:, None] - nodes)
        return jnp.prod(jnp.where(own, 1.0, part), axis=1)

    def at_spaxels(self, values: Float[Array, " cell *width"]):
        """Interpolate between cells, (spaxel, *width)."""
        maps = values.reshape(*self.shape, -1)
        maps = jnp.einsum("yi,xj,ijw->yxw", self.between_y, self.between_x, maps)
        return maps.reshape(-1, *values.shape[1:])[self.pick]


def lay_out(
    spaxels,
    signal,
    wavelengths,
    psf=None,
    *,
    angle: float = 0.0,
    scales: tuple[float, ...] = (1.0,),
) -> Scene:
    """Lay a grid of cells around the spaxels of a cube.

    Parameters
    ----------
    spaxels : Spaxels
        Of more than one row and column.
    signal : array, (spaxel,)
        What each tells, for the mean over the light; not negative.
    wavelengths : array, (line,)
        Observed [µm].
    psf : PSF or ImagePSF, optional
        None for light that is seen where it is emitted.
    angle : float
        Of the slices in the frame of the map, as in `PSF.kernel` [deg].
    scales : tuple of float
        Widths of the PSF, over its own, to have at hand; increasing.
    """
    scales = (1.0,) if psf is None else scales
    pixel = spaxels.pixel_scale
    margin = 0 if psf is None else int(np.ceil(MARGIN / pixel))
    low, size = spaxels.index.min(axis=0), np.ptp(spaxels.index, axis=0) + 1
    where, seen = tuple((spaxels.index - low).T), np.zeros(tuple(size))
    seen[where] = signal
    compact = half_light(spaxels, np.where(is_lit(seen)[where], signal, 0)) < COMPACT
    step = 1 if compact else max(int(CELL / pixel + 1e-6), 1)
    places = [np.arange(-margin, n + margin + step - 1, step) for n in size]
    (waves_y, along_y), (waves_x, along_x) = (
        make_waves(place, ends, pixel, spaxels.kpc_per_arcsec)
        for place, ends in zip(places, find_lit(seen, pixel), strict=True)
    )
    rows, columns = _blur(psf, wavelengths, pixel, size, places, angle, scales)
    between = [
        make_interp_spline(place, np.eye(len(place)), k=1)(np.arange(n))
        for place, n in zip(places, size, strict=True)
    ]
    mean = (between[0] @ waves_y).T @ (seen / seen.sum()) @ (between[1] @ waves_x)
    y, x = np.meshgrid(*places, indexing="ij")
    return Scene(
        position=_extend(spaxels, np.stack([y.ravel(), x.ravel()], axis=1) + low),
        pick=np.ravel_multi_index(where, tuple(size)),
        waves_y=waves_y,
        waves_x=waves_x,
        frequency=np.hypot(along_y[:, None], along_x),
        rows=rows,
        columns=columns,
        between_y=between[0],
        between_x=between[1],
        mean=mean,
        scales=np.array(scales),
    )


def half_light(spaxels, signal) -> float:
    """Radius about the light's own middle that holds half of it [arcsec].

    Noise is alike everywhere, so that S/N is as good as light.
    """
    weight = np.sqrt(signal) / np.sum(np.sqrt(signal))
    place = spaxels.index * spaxels.pixel_scale
    radius = np.hypot(*(place - weight @ place).T)
    order = np.argsort(radius)
    return float(radius[order][np.searchsorted(np.cumsum(weight[order]), 0.5)])


def _blur(psf, wavelengths, pixel, size, places, angle, scales):
    """Find what reaches rows and columns of the map from those of the cells.

    Light between cells is interpolated by cubic splines.
    """
    fine = [np.arange(place[0], place[-1] + 1) for place in places]
    whole = tuple(map(len, fine))
    if psf is None:
        one = [np.broadcast_to(np.eye(n), (len(wavelengths), 1, n, n)) for n in whole]
        pair = one[0], one[1][:, None]
    else:
        pair = tabulate(psf, wavelengths, pixel, whole, angle, scales)
    return [
        matrices[..., -grid[0] : n - grid[0], :] @ _spline(place)(grid)
        for matrices, grid, n, place in zip(pair, fine, size, places, strict=True)
    ]


def _spline(places):
    """Interpolation of one at each place and nothing at others, cubic if it can be."""
    return make_interp_spline(places, np.eye(len(places)), k=min(3, len(places) - 1))


def _extend(spaxels, cells):
    """Disc-plane positions of all cells: an affine map of row and column."""
    ones = np.ones((len(spaxels), 1))
    design = np.concatenate([ones, spaxels.index], axis=1)
    affine, *_ = np.linalg.lstsq(design, spaxels.position)
    return np.concatenate([np.ones((len(cells), 1)), cells], axis=1) @ affine
