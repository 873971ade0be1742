"""Room for a few spaxels more, of which nothing is told: few shapes serve all galaxies.

A program is compiled for the shape of its data, which takes longer than to fit most
tables.  Data that say nothing change no posterior: latents of spaxels without data are
drawn from their prior and left out again, and cells beyond the map carry no light.
"""

from dataclasses import replace

import numpy as np

from metalgrad.likelihood import MEASURED, LineLikelihood
from metalgrad.record import MAPS
from metalgrad.scene import Scene

DIGITS = 3  # binary, of rounded numbers: a quarter more at most, an eighth on average


def round_up(count: int) -> int:
    """Return the next number of three binary digits: up to 8, 10, 12, 14, 16, 20, ...

    Parameters
    ----------
    count : int
    """
    step = 1 << max((count - 1).bit_length() - DIGITS, 0)
    return -(-count // step) * step


def pad(data: LineLikelihood) -> LineLikelihood:
    """Add spaxels without data, and cells without light, up to a round number.

    What priors are centred on stays that of the data.

    Parameters
    ----------
    data : LineLikelihood

    Returns
    -------
    LineLikelihood
        Of a single spaxel, which models treat by itself, the same.
    """
    more = round_up(len(data)) - len(data)
    arrays = {name: _extend(getattr(data, name), more) for name in MEASURED}
    position = np.asarray(data.position)
    arrays["position"] = np.concatenate([position, position[:more]])
    scene = None if data.scene is None else _pad_scene(data.scene, more)
    return replace(data, **arrays, scene=scene)


def trim(outcome: dict, marginal, count: int) -> tuple:
    """Leave out what was drawn of spaxels that `pad` added.

    Parameters
    ----------
    outcome : dict
        As `metalgrad.chains.Run.chains` has it.
    marginal : numpy.ndarray, (chain, draw, spaxel)
    count : int
        Of spaxels of the data.

    Returns
    -------
    outcome : dict
        Of which the latents are as they were.
    marginal : numpy.ndarray
    """
    maps = {name: outcome["sites"][name][..., :count] for name in MAPS}
    flux = outcome["kept"]["line_flux"][..., :count, :]
    cut = {"sites": outcome["sites"] | maps}
    cut["kept"] = outcome["kept"] | {"line_flux": flux}
    return outcome | cut, marginal[..., :count]


def _pad_scene(scene: Scene, spaxels: int) -> Scene:
    """Add rows and columns of map and cells."""
    sides = [len(scene.between_y), len(scene.between_x)]
    rows, columns = (round_up(side) - side for side in sides)
    cells_y, cells_x = (round_up(side) - side for side in scene.shape)
    y, x = np.divmod(np.asarray(scene.pick), sides[1])
    places = np.asarray(scene.position).reshape(*scene.shape, 2)
    places = np.pad(places, ((0, cells_y), (0, cells_x), (0, 0)), mode="edge")
    return replace(
        scene,
        position=places.reshape(-1, 2),
        pick=_extend(y * (sides[1] + columns) + x, spaxels),
        waves_y=_extend(scene.waves_y, cells_y),
        waves_x=_extend(scene.waves_x, cells_x),
        rows=_extend(scene.rows, rows, cells_y, axis=-2),
        columns=_extend(scene.columns, columns, cells_x, axis=-2),
        between_y=_extend(scene.between_y, rows, cells_y),
        between_x=_extend(scene.between_x, columns, cells_x),
    )


def _extend(values, *more: int, axis: int = 0):
    """Add zeros at the end of an axis, and of those after it."""
    values = np.asarray(values)
    width = np.zeros((values.ndim, 2), int)
    first = axis % values.ndim
    width[first : first + len(more), 1] = more
    return np.pad(values, width)
