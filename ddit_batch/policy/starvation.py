"""Starvation time: what a job has lost since it was last given workers.

Source: the DDiT paper (arXiv 2506.13497), as a secondary note tells it:
``s_r = (cur_step - last_step) * (t_step(current dop) - t_step(B))``, ``last_step`` being the step
of the most recent grant. It looks only backward and begins anew with each grant.
"""

from __future__ import annotations

from ddit_batch.cost_model import Cost
from ddit_batch.snapshot import JobView


def starvation_s(job: JobView, cost: Cost) -> float:
    """Seconds by which the steps since the last grant took longer than at the optimal dop B.

    Never below 0: at a dop beyond B nothing is lost. 0 for a job that is not denoised. A group
    that a lost worker left with an illegal dop counts as the largest legal one in it.
    """
    if not job.dop:
        return 0.0
    excess_s = cost.at(cost.widest(job.dop)) - cost.at(cost.optimal_dop)
    return max(0.0, (job.step - job.granted_step) * excess_s)
