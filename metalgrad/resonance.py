"""Steps of NUTS for which its trajectories end where they turn.

In whitened coordinates all directions swing alike, and a trajectory turns back after
half a period, pi.  NUTS looks only when it has doubled: a trajectory that ends just
short of pi is doubled to one of just more than 2 pi, back where it began, which looks
as if it had hardly left, and is doubled again and again.  In a standard normal of 2800
dimensions steps 3 % too short so cost 27 times what slightly longer ones do (issue
2799 of Stan, which compares more pairs of states since; NumPyro does not).
"""

import numpy as np

BEYOND = 1.03  # times the step that just turns, since metrics are not exact (ours)
FEWEST = 3  # doublings; trajectories of less are of few dimensions, out of tune (ours)


def leave(step: float) -> float:
    """Lengthen a step whose trajectories would miss their turn.

    Parameters
    ----------
    step : float
        In coordinates in which the posterior is nearly a sphere of radius 1.

    Returns
    -------
    float
        A step that is longer by 10.4 % at most.
    """
    doublings = int(np.log2(BEYOND * np.pi / step + 1))
    if doublings < FEWEST:
        return step
    turning = BEYOND * np.pi / (2**doublings - 1)
    missing = 2 * np.pi / (2 ** (doublings + 1) - 1)  # twice as many come full circle
    return turning if step > missing else step
