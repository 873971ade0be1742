"""How a PSF blurs the maps of lines.

The PSF hardly changes across one line, so that each line's map is blurred by itself,
before the spectrum is made. Maps are (y, x), x increasing to the right and y upwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metalgrad.psf import PSF, ImagePSF

EVEN = "kernel has the shape {} where odd sizes are expected; resample it, as ImagePSF"
DARK = "kernel has the sum {:g} where a positive one is expected; mend it"


@dataclass(frozen=True, eq=False)
class Blur:
    """What the PSF does to the maps of several lines; made by `blur_for`.

    Attributes
    ----------
    rows, columns : array, (line, term, y, y) and (line, term, x, x)
        What mixes rows and columns, for each separable term of a line's kernel.
    """

    # JAX arrays too, so that a traced function may take both as its arguments.
    rows: Float[Array | np.ndarray, "line term y y"]
    columns: Float[Array | np.ndarray, "line term x x"]

    def __call__(
        self, maps: Float[Array | np.ndarray, "line y x"]
    ) -> Float[Array, "line y x"]:
        """Spread the flux of each spaxel over its neighbours.

        The maps, of any unit and kept in their precision, are dark beyond their edges,
        and what is spread beyond those is lost.
        """
        rows, columns = (jnp.asarray(m, maps.dtype) for m in (self.rows, self.columns))
        mixed = rows @ jnp.asarray(maps)[:, None]
        return jnp.einsum("ltyi,ltxi->lyx", mixed, columns)


def separate_all(
    kernels: list[np.ndarray],
    shape: tuple[int, int],
    tolerance: float = 1e-3,
) -> tuple[Float[np.ndarray, "term y y"], Float[np.ndarray, "kernel term x x"]]:
    """Write convolutions with alike kernels as products that share their rows.

    What lies between the kernels is then between their columns alone.  As `separate`,
    but for the terms, which are those of all kernels side by side.

    Parameters
    ----------
    kernels : list of array, (rows, columns)
        Odd in size and of positive sum.
    shape : (int, int)
        Rows and columns of the map.
    tolerance : float
        Largest error of a spaxel of a kernel, relative to the kernel's sum.
    """
    size = np.max([kernel.shape for kernel in kernels], axis=0)
    padded = np.array(
        [np.pad(k, [(n // 2,) * 2 for n in size - np.shape(k)]) for k in kernels]
    )
    left, singular, right = np.linalg.svd(np.concatenate(padded, axis=1))
    total = padded.sum(axis=(1, 2))
    for terms in range(1, len(singular) + 1):
        u, v = left[:, :terms] * singular[:terms], right[:terms]
        v = v.reshape(terms, len(kernels), size[1])
        made = np.einsum("yt,tkx->kyx", u, v)
        scale = total / made.sum(axis=(1, 2))
        off = np.abs(scale[:, None, None] * made - padded).max(axis=(1, 2))
        if np.all(off <= tolerance * total):
            break
    columns = [_toeplitz(s * v[:, k], shape[1]) for k, s in enumerate(scale)]
    return _toeplitz(u.T, shape[0]), np.array(columns)


def separate(
    kernel: Float[np.ndarray, "rows columns"],
    shape: tuple[int, int],
    tolerance: float = 1e-3,
) -> tuple[Float[np.ndarray, "term y y"], Float[np.ndarray, "term x x"]]:
    """Write a convolution as a few products of matrices.

    The terms are the first of the kernel's singular value decomposition, as few as the
    tolerance allows (one for a Gaussian along the axes), scaled so that they keep its
    sum and hence the flux. Summed over terms, ``rows @ map @ columns.T`` is the map's
    convolution, dark beyond its edges.

    Parameters
    ----------
    kernel : array, (rows, columns)
        Odd in size and of positive sum.
    shape : (int, int)
        Rows and columns of the map; may be smaller than the kernel.
    tolerance : float
        Largest error of a spaxel of the kernel, relative to the kernel's sum. The image
        of a point source errs nowhere by more than this times its flux.
    """
    if not np.all(np.array(kernel.shape) % 2):
        raise ValueError(EVEN.format(kernel.shape))
    total = kernel.sum()
    if not total > 0:
        raise ValueError(DARK.format(total))
    left, singular, right = np.linalg.svd(kernel)
    for terms in range(1, len(singular) + 1):
        u, v = left[:, :terms] * singular[:terms], right[:terms]
        scale = total / (u @ v).sum()
        if np.abs(scale * u @ v - kernel).max() <= tolerance * total:
            break
    return _toeplitz(scale * u.T, shape[0]), _toeplitz(v, shape[1])


def blur_for(
    psf: PSF | ImagePSF,
    wavelengths: Float[np.ndarray, " line"] | Sequence[float],
    pixel_scale,
    shape: tuple[int, int],
    angle=0.0,
) -> Blur:
    """Return what blurs the maps of lines at some wavelengths.

    Parameters
    ----------
    wavelengths : array, (line,)
        Observed wavelength of each line [µm].
    pixel_scale, angle : float
        As in `PSF.kernel` [arcsec, deg].
    shape : (int, int)
        Rows and columns of the maps.
    """
    kernels = [psf.kernel(wave, pixel_scale, angle) for wave in wavelengths]
    pairs = [separate(kernel, shape) for kernel in kernels]
    most = max(len(rows) for rows, _ in pairs)
    rows, columns = (
        np.stack([np.pad(m, [(0, most - len(m)), (0, 0), (0, 0)]) for m in matrices])
        for matrices in zip(*pairs, strict=True)
    )
    return Blur(rows, columns)


def tabulate(psf, wavelengths, pixel_scale, shape, angle, scales):
    """Return what blurs maps by a PSF of several widths.

    Parameters
    ----------
    psf, wavelengths, pixel_scale, shape, angle
        As in `blur_for`.
    scales : tuple of float
        Widths over the PSF's own.

    Returns
    -------
    rows : array, (line, term, y, y)
    columns : array, (line, scale, term, x, x)
        Those of a width between are between these.
    """
    if tuple(scales) == (1.0,):
        blur = blur_for(psf, wavelengths, pixel_scale, shape, angle)
        return blur.rows, blur.columns[:, None]
    wide = [psf.scaled(scale) for scale in scales]
    pairs = [
        separate_all([one.kernel(wave, pixel_scale, angle) for one in wide], shape)
        for wave in wavelengths
    ]
    most = max(len(rows) for rows, _ in pairs)
    rows = [np.pad(r, [(0, most - len(r)), (0, 0), (0, 0)]) for r, _ in pairs]
    columns = [
        np.pad(c, [(0, 0), (0, most - c.shape[1]), (0, 0), (0, 0)]) for _, c in pairs
    ]
    return np.stack(rows), np.stack(columns)


def _toeplitz(profiles, size):
    """Matrices (term, size, size) that convolve with odd profiles (term, pixel)."""
    half = profiles.shape[1] // 2
    padded = np.pad(profiles, [(0, 0), (size, size)])
    # Entry (i, j) is what spaxel i receives from j.
    lag = np.subtract.outer(np.arange(size), np.arange(size))
    return padded[:, lag + half + size]
