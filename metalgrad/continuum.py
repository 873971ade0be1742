"""The continuum under a complex of lines: straight pieces and the Balmer break."""

import numpy as np
from jaxtyping import Float
from scipy.special import erf

BALMER_LIMIT = 0.3645  # µm, rest frame: Venturi et al. (2024), Sect. 2.2.1


def basis(
    edges: Float[np.ndarray, " edge"],
    redshift: float,
    sigma: float,
    light: Float[np.ndarray, " pixel"] | None = None,
) -> Float[np.ndarray, "term pixel"]:
    """Continuum terms of one complex: a straight line, and a break where there is one.

    Where the complex spans the Balmer limit, a second straight line adds to the first
    on the blue side; the jump between them is as wide as the LSF (the three pieces of
    Venturi et al. 2024: one on each side and one that models the jump).

    Parameters
    ----------
    edges : array, (pixel + 1,)
        Bin edges [µm, observed].
    redshift : float
    sigma : float
        Width of the LSF at the break [µm].
    light : array, (pixel,), optional
        What the straight line multiplies: that of stars, with their absorption lines.
        None, and so 1, by default.

    Returns
    -------
    array, (2 or 4, pixel)
    """
    centres = (edges[1:] + edges[:-1]) / 2
    middle, half = (edges[0] + edges[-1]) / 2, (edges[-1] - edges[0]) / 2
    slope = (centres - middle) / half
    light = np.ones_like(slope) if light is None else light
    line = [light, light * slope]
    limit = BALMER_LIMIT * (1 + redshift)
    if not edges[0] < limit < edges[-1]:
        return np.stack(line)
    blueward = 0.5 * (1 - erf((centres - limit) / (np.sqrt(2.0) * sigma)))
    return np.stack([*line, blueward, blueward * (centres - limit) / half])
