"""The solutions that a fit has found, where data leave more than one alive."""

import json
from dataclasses import dataclass

import numpy as np
from xarray import DataArray, DataTree

BRANCH = "branch"  # in sample_stats: which branch each draw is from


@dataclass(frozen=True)
class Solution:
    """One branch of a fit.

    Attributes
    ----------
    weight, error : float
        Share of the posterior, and its Monte Carlo error.
    chosen : array of bool, (draw,)
        Which draws are of it, in every chain.
    """

    weight: float
    error: float
    chosen: np.ndarray

    def take(self, posterior: DataTree) -> DataTree:
        """Return the fit with the draws of this branch alone.

        Groups that do not hold every draw are left out.
        """
        groups = {
            name: group.dataset.isel(draw=self.chosen)
            for name, group in posterior.children.items()
            if group.sizes.get("draw") == len(self.chosen)
        }
        if "constant_data" in posterior.children:
            groups["constant_data"] = posterior["constant_data"].dataset
        tree = DataTree.from_dict(groups)
        tree.attrs = posterior.attrs
        return tree


def solutions(posterior: DataTree) -> list[Solution]:
    """List the branches of a fit, the heaviest first; none if there is but one.

    Parameters
    ----------
    posterior : xarray.DataTree
        As `metalgrad.fit` returns it.
    """
    told = json.loads(posterior.attrs.get("branches", "[]"))
    if not told or BRANCH not in posterior["sample_stats"].data_vars:
        return []
    branch = posterior["sample_stats"][BRANCH].transpose("chain", "draw").values[0]
    found = [
        Solution(one["weight"], one["error"], branch == number)
        for number, one in enumerate(told)
    ]
    found = [one for one in found if one.chosen.any()]
    return sorted(found, key=lambda one: -one.weight)


def tell_branches(posterior: DataTree, branch, weights, errors) -> None:
    """Write into a fit which branch each draw is from, and what branches weigh.

    Parameters
    ----------
    posterior : xarray.DataTree
    branch : array of int, (draw,)
    weights, errors : array, (branch,)
    """
    chains = posterior["sample_stats"].sizes["chain"]
    each = np.tile(branch, (chains, 1))
    posterior["sample_stats"][BRANCH] = DataArray(each, dims=("chain", "draw"))
    told = [
        {"weight": float(weight), "error": float(error)}
        for weight, error in zip(weights, errors, strict=True)
    ]
    posterior.attrs["branches"] = json.dumps(told)
