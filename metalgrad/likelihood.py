"""What the data say about line fluxes: one Gaussian per spaxel.

Spectra (`metalgrad.compression`) and tables of line fluxes (`from_line_maps`) both end
here, and the model sees nothing else.  For a spaxel and a complex of lines ``c``,

    -2 log p(y | f) = (|U f - u|² + misfit_c) / κ_c² + 2 dof_c log κ_c + const,

with ``f`` the line fluxes, ``U`` a square root of their precision matrix, ``u`` the
whitened data, and ``κ_c`` the scale of the noise relative to the pipeline's errors.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metalgrad.normal import decompose, forget, whiten

MEASURED = ("root", "white", "misfit", "dof", "log_norm", "position")
DERIVED = ("pivot", "typical", "told")
TOLD = ("root", "white", "misfit", "dof", "log_norm")  # what data say; zero is nothing


@dataclass(frozen=True, eq=False)
class LineLikelihood:
    """A Gaussian likelihood of the line fluxes of every spaxel.

    Fluxes are in 1e-20 erg/s/cm² (or in the unit of the line maps).

    Attributes
    ----------
    lines : tuple of str
    complexes : tuple of tuple of str
        The lines that share a wavelength window and a noise scale.
    root : array, (spaxel, line, line)
        Square root ``U`` of the precision; row ``r`` belongs to the complex of line
        ``r``.
    white : array, (spaxel, line)
        Whitened data ``u``.
    misfit, dof : array, (spaxel, complex)
        χ² of the best fluxes, and the number of channels less that of continuum terms.
    log_norm : array, (spaxel,)
        Logarithm of what does not depend on fluxes or noise scales.
    position : array, (spaxel, 2)
        In the plane of the disc, from the centre [kpc, or the unit of the line maps].
    has_channels : bool
        Whether line-free channels tell the noise; if not, errors are taken as given.
    pivot : float, optional
        Radius at which level and slope decorrelate: mean weighted by S/N squared.  This
        and the next are found once, from the rest, and not in every gradient.
    typical : array, (line,), optional
        Log10 of each line's mean flux, or of its error where that is larger.
    told : array, (line,), optional
        S/N squared of each line's mean flux.
    inflation : float
        By how much neighbours that share noise have widened the variance of fluxes.
    scene : Scene, optional
        Where the light of a cube's spaxels comes from.
    """

    lines: tuple[str, ...]
    complexes: tuple[tuple[str, ...], ...]
    root: Float[Array | np.ndarray, "spaxel line line"]
    white: Float[Array | np.ndarray, "spaxel line"]
    misfit: Float[Array | np.ndarray, "spaxel complex"]
    dof: Float[Array | np.ndarray, "spaxel complex"]
    log_norm: Float[Array | np.ndarray, " spaxel"]
    position: Float[Array | np.ndarray, "spaxel 2"]
    has_channels: bool = True
    pivot: Float[Array | np.ndarray, ""] | None = None
    typical: Float[Array | np.ndarray, " line"] | None = None
    told: Float[Array | np.ndarray, " line"] | None = None
    inflation: float = 1.0
    scene: object = None

    def __post_init__(self):
        """Find what follows from the data."""
        if self.pivot is None:
            object.__setattr__(self, "pivot", self._find_pivot())
        if self.typical is None:
            object.__setattr__(self, "typical", self._find_typical())
        if self.told is None:
            object.__setattr__(self, "told", find_told(self.root, self.white))

    def __len__(self) -> int:
        """Return the number of spaxels."""
        return self.white.shape[0]

    @property
    def row_complex(self) -> np.ndarray:
        """Index of each line's complex, (line,)."""
        owner = {line: c for c, names in enumerate(self.complexes) for line in names}
        return np.array([owner[line] for line in self.lines])

    @property
    def labels(self) -> list[str]:
        """A name for each complex: its lines."""
        return ["+".join(names) for names in self.complexes]

    @property
    def arrays(self) -> dict:
        """The arrays alone, to pass through a compiled function."""
        own = {n: jnp.asarray(getattr(self, n), float) for n in MEASURED + DERIVED}
        return own | ({} if self.scene is None else self.scene.arrays)

    def with_arrays(self, arrays: dict) -> "LineLikelihood":
        """Return the same likelihood around other arrays (traced ones, say)."""
        scene = None if self.scene is None else self.scene.with_arrays(arrays)
        own = {name: arrays[name] for name in MEASURED + DERIVED}
        return replace(self, **own, scene=scene)

    def log_likelihood(
        self,
        flux: Float[Array, "spaxel line"],
        noise_scale: Float[Array, " complex"],
    ) -> Float[Array, " spaxel"]:
        """Log density of each spaxel's data.

        Parameters
        ----------
        flux : array, (spaxel, line)
        noise_scale : array, (complex,)
            True noise over the errors of the data.
        """
        residual = jnp.einsum("srl,sl->sr", self.root, flux) - self.white
        residual = residual / noise_scale[self.row_complex][None]
        return self.log_density(jnp.sum(residual**2, axis=-1), noise_scale)

    def log_density(
        self, chi2: Float[Array, " spaxel"], noise_scale: Float[Array, " complex"]
    ) -> Float[Array, " spaxel"]:
        """Log density of data ``chi2`` away from what their lines should be."""
        scale = noise_scale[None]
        rest = self.misfit / scale**2 + 2 * self.dof * jnp.log(scale)
        return self.log_norm - 0.5 * (chi2 + jnp.sum(rest, axis=-1))

    def average(self, values: Float[Array, " spaxel"]) -> Float[Array, ""]:
        """Mean over the spaxels of which anything was measured: others are white 0."""
        measured = jnp.any(jnp.asarray(self.white) != 0, axis=1)
        return measured @ values / jnp.maximum(jnp.sum(measured), 1)

    def precision(self) -> np.ndarray:
        """Precision matrix of the fluxes for unit noise scale, (spaxel, line, line)."""
        root = np.asarray(self.root, float)
        return np.einsum("srl,srm->slm", root, root)

    def best_flux(self) -> tuple[np.ndarray, np.ndarray]:
        """Least-squares fluxes and their errors, (spaxel, line) each.

        A line that a spaxel's data do not constrain has flux 0 and error infinity.
        """
        precision, vector = self._normal()
        values = decompose(precision)
        flux = np.einsum("slm,sm->sl", values.inverse(), vector)
        error = np.sqrt(np.einsum("sll->sl", values.inverse()))
        return np.where(values.seen, flux, 0.0), np.where(values.seen, error, np.inf)

    def keep(self, lines: tuple[str, ...]) -> "LineLikelihood":
        """Integrate the other lines out, each with a flat prior on its flux.

        A complex of which no line is left is dropped with its noise scale.

        Parameters
        ----------
        lines : tuple of str

        Returns
        -------
        LineLikelihood
        """
        kept = np.array([name in lines for name in self.lines])
        if kept.all():
            return self
        (precision, vector), owner = self._normal(), self.row_complex
        full = np.einsum("sll->sl", precision).copy()
        dof, log_norm = np.array(self.dof, float), np.array(self.log_norm, float)
        for c in range(len(self.complexes)):
            lost = np.flatnonzero(~kept & (owner == c))
            values = decompose(precision[:, lost][:, :, lost])
            bridge = precision[:, :, lost] @ values.inverse()
            vector = vector - np.einsum("slm,sm->sl", bridge, vector[:, lost])
            precision = precision - bridge @ precision[:, lost]
            dof[:, c] -= values.rank
            log_norm += 0.5 * (values.rank * np.log(2 * np.pi) - values.log_det)
        names = [tuple(n for n in c if n in lines) for c in self.complexes]
        precision, vector = forget(precision, vector, full)
        root, white = whiten(
            precision[:, kept][:, :, kept], vector[:, kept], owner[kept]
        )
        left = [bool(c) for c in names]
        return replace(
            self,
            lines=tuple(name for name in self.lines if name in lines),
            complexes=tuple(filter(None, names)),
            root=root,
            white=white,
            misfit=np.asarray(self.misfit)[:, left],
            dof=np.maximum(dof, 0)[:, left],
            log_norm=log_norm,
            **dict.fromkeys(DERIVED),
            scene=None if self.scene is None else self.scene.keep(kept),
        )

    def signal(self) -> np.ndarray:
        """S/N squared of each spaxel, less what noise alone gives, (spaxel,)."""
        square = np.sum(np.asarray(self.white, float) ** 2, axis=-1)
        return np.clip(square - len(self.lines), 1e-6, None)

    def _find_pivot(self):
        radius = np.hypot(*np.asarray(self.position).T)
        return np.array(np.average(radius, weights=self.signal()))

    def _find_typical(self):
        columns, white = np.asarray(self.root, float), np.asarray(self.white, float)
        information = np.sum(columns**2, axis=(0, 1)) + 1e-300
        mean = np.einsum("srl,sr->l", columns, white) / information
        return np.log10(np.maximum(mean, information**-0.5))

    def _normal(self):
        """Precision matrix of the fluxes, and its product with the best ones."""
        root, white = np.asarray(self.root, float), np.asarray(self.white, float)
        return self.precision(), np.einsum("srl,sr->sl", root, white)


def find_told(root, white) -> Float[Array | np.ndarray, " line"]:
    """S/N squared of each line's mean flux.

    Parameters
    ----------
    root, white : array
        As of `LineLikelihood`.
    """
    # Not in single precision: fluxes of 1e-17 would be infinite here.
    xp = jnp if isinstance(white, jax.Array) else np
    information = xp.sum(root**2, axis=(0, 1))
    toward = xp.einsum("srl,sr->l", root, white)
    return toward**2 / xp.where(information > 0, information, 1.0)


def from_line_maps(maps) -> LineLikelihood:
    """Turn measured line fluxes into a likelihood; every line is its own measurement.

    Parameters
    ----------
    maps : LineMaps
        ``flux`` and ``error``, (spaxel, line); an infinite error is no measurement.

    Raises
    ------
    ValueError
        If nothing was measured, a flux or error that was is no number, or an error is
        not above 0.
    """
    flux, error = np.asarray(maps.flux, float), np.asarray(maps.error, float)
    measured = np.isfinite(error)
    wrong = np.argwhere(np.isnan(error) | (measured & ~np.isfinite(flux)))
    if len(wrong):
        spaxel, line = wrong[0]
        raise ValueError(
            f"flux {flux[spaxel, line]:g} ± {error[spaxel, line]:g} of "
            f"{maps.lines[line]} in spaxel {spaxel} is not finite; give flux 0 and an "
            "infinite error for what was not measured"
        )
    low = np.argwhere(error <= 0)
    if len(low):
        spaxel, line = low[0]
        raise ValueError(
            f"error {error[spaxel, line]:g} of {maps.lines[line]} in spaxel {spaxel} "
            "is not above 0; give its standard deviation, infinite where not measured"
        )
    if not measured.any():
        raise ValueError("no line flux was measured; give at least one finite error")
    inverse = np.where(measured, 1 / np.where(measured, error, 1.0), 0.0)
    count = measured.sum(axis=1, keepdims=True).astype(float)
    log_norm = np.sum(np.log(np.where(measured, inverse, 1.0)), axis=1)
    return LineLikelihood(
        lines=tuple(maps.lines),
        complexes=(tuple(maps.lines),),
        root=np.einsum("sl,lm->slm", inverse, np.eye(flux.shape[1])),
        white=np.where(measured, flux, 0.0) * inverse,
        misfit=np.zeros_like(count),
        dof=count,
        log_norm=log_norm - 0.5 * count[:, 0] * np.log(2 * np.pi),
        position=np.asarray(maps.position, float),
        has_channels=False,
    )
