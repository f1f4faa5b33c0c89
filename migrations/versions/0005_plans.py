"""Plans: the groups that running jobs are to have, from the decision until a step boundary.

The views show what is under way: who is about to join a group is not idle, and a worker says
whether it leads, follows or joins.
"""

import runpy
from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"

PLANS = """
CREATE TABLE plans (
    epoch        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id       text NOT NULL REFERENCES jobs (id),
    attempt      integer NOT NULL,
    workers      text[] NOT NULL,
    incarnations bigint[] NOT NULL,
    made_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at     timestamptz,
    outcome      text,
    CONSTRAINT plans_outcome CHECK (
        outcome IN ('formed', 'replaced', 'withdrawn', 'not_formed', 'attempt_ended')),
    CONSTRAINT plans_end CHECK ((ended_at IS NULL) = (outcome IS NULL)),
    CONSTRAINT plans_members CHECK (cardinality(workers) = cardinality(incarnations))
);
CREATE UNIQUE INDEX plans_pending ON plans (job_id) WHERE outcome IS NULL;
CREATE INDEX plans_job ON plans (job_id, epoch);
ALTER TABLE segments ALTER COLUMN plan_epoch TYPE bigint
"""

# Of a row of jobs and one of plans: whether the plan is still to take effect. From the few jobs
# that are under way, not from the plans, of which there are ever more.
IS_OPEN = """
    job.dispatched_at IS NOT NULL AND job.state IN ('encoded', 'denoising')
    AND plan.job_id = job.id AND plan.attempt = job.attempt
    AND (plan.outcome IS NULL OR plan.outcome = 'formed')
    AND NOT EXISTS (SELECT FROM segments later
                    WHERE later.job_id = plan.job_id AND later.plan_epoch >= plan.epoch)
"""

GROUP_PLANS = """
CREATE VIEW group_plans AS
SELECT
    plan.epoch,
    plan.job_id,
    plan.attempt,
    plan.workers,
    cardinality(plan.workers) AS dop,
    plan.made_at,
    plan.ended_at,
    plan.outcome,
    EXISTS (SELECT FROM jobs job WHERE job.id = plan.job_id AND <is open>) AS is_open
FROM plans plan
"""

IDLE = (
    """        WHERE segment.ended_at IS NULL AND worker.name = ANY (segment.workers)
    )) AS idle
""",
    """        WHERE segment.ended_at IS NULL AND worker.name = ANY (segment.workers)
    ) AND NOT EXISTS (
        SELECT FROM jobs job CROSS JOIN plans plan
        WHERE worker.name = ANY (plan.workers) AND <is open>
    )) AS idle
""",
)

ITS_JOB = (
    """worker.name = ANY (workers) LIMIT 1)
    ) END AS job_id,
""",
    """worker.name = ANY (workers) LIMIT 1),
        joining.job_id
    ) END AS job_id,
""",
)
ITS_ROLE = (
    """ AS last_seen
FROM (SELECT DISTINCT ON (name) * FROM workers ORDER BY name, incarnation DESC) worker
""",
    """ AS last_seen,
    CASE WHEN worker.ended_at IS NULL THEN coalesce(
        (SELECT CASE WHEN workers[1] = worker.name THEN 'leader' ELSE 'follower' END
         FROM segments WHERE ended_at IS NULL AND worker.name = ANY (workers) LIMIT 1),
        CASE WHEN joining.job_id IS NOT NULL THEN 'joining' END
    ) END AS role
FROM (SELECT DISTINCT ON (name) * FROM workers ORDER BY name, incarnation DESC) worker
LEFT JOIN LATERAL (
    SELECT job.id AS job_id FROM jobs job CROSS JOIN plans plan
    WHERE worker.name = ANY (plan.workers[2:]) AND <is open>
    LIMIT 1
) joining ON true
""",
)

NEXT_WORKERS = (
    """    job.finished_at
FROM jobs job
""",
    """    job.finished_at,
    CASE WHEN job.dispatched_at IS NOT NULL THEN (
        SELECT plan.workers FROM plans plan WHERE <is open> ORDER BY plan.epoch DESC LIMIT 1
    ) END AS next_workers
FROM jobs job
""",
)

PLAN_OF_SEGMENT = (
    (
        """    took.seconds * use.dop AS gpu_seconds
""",
        """    took.seconds * use.dop AS gpu_seconds,
    use.plan
""",
    ),
    (
        """           from_step, to_step, started_at, ended_at
    FROM segments
""",
        """           from_step, to_step, started_at, ended_at, plan_epoch AS plan
    FROM segments
""",
    ),
    (
        """           NULL, NULL, attempt.claimed_at, attempt.ended_at
""",
        """           NULL, NULL, attempt.claimed_at, attempt.ended_at, NULL
""",
    ),
)

COMMENTS = {
    "VIEW group_plans": "One row for each change of a group that the scheduler has asked for: the "
    "workers that a job under way was to have from its next step boundary.",
    "COLUMN group_plans.epoch": "Number of the plan; rises over all jobs.",
    "COLUMN group_plans.job_id": "The job.",
    "COLUMN group_plans.attempt": "Number of its attempt at the DiT phase.",
    "COLUMN group_plans.workers": "Names of the workers, the leader first; empty if the job was to "
    "be given back.",
    "COLUMN group_plans.dop": "How many they are.",
    "COLUMN group_plans.made_at": "When it was decided.",
    "COLUMN group_plans.ended_at": "When the group had formed, or was given up; null before.",
    "COLUMN group_plans.outcome": "formed; replaced (another was decided first), withdrawn (the "
    "job was to stay as it was), not_formed (not all its workers were ready in time, or the group "
    "of that time broke), attempt_ended; null while it forms.",
    "COLUMN group_plans.is_open": "Whether it is still to take effect.",
    "COLUMN worker_capacity.idle": "Those of them that work on nothing, to which nothing has been "
    "sent and which no group is about to take in.",
    "COLUMN worker_status.job_id": "The job that it works on, alone or in a group, or whose group "
    "it is about to join; null when idle.",
    "COLUMN worker_status.role": "Of a DiT worker, what it is in the group that denoises the job: "
    "leader, follower, or joining; null when idle, and for other phases.",
    "COLUMN job_status.next_workers": "Names of the workers that it is about to have, the leader "
    "first: from its next step boundary, or once its leader has taken it; empty if it is about to "
    "be given back, null if no change is under way.",
    "COLUMN gpu_seconds.reason": "For dit, why the segment began: start, resume or "
    "checkpoint_lost for the first of an attempt; after that grow, shrink or change, by a plan, or "
    "group_broken.",
    "COLUMN gpu_seconds.plan": "For dit, the plan that made the group (view group_plans); 0: the "
    "leader alone, as it took the job.",
}

READER_CHANGES = (
    ("CREATE FUNCTION ddit_grant_reader", "CREATE OR REPLACE FUNCTION ddit_grant_reader"),
    ("gpu_seconds TO ddit_reader", "gpu_seconds, decision_log, group_plans TO ddit_reader"),
)


def upgrade() -> None:
    op.execute(PLANS)
    op.execute(_spelt_out(GROUP_PLANS))
    # The views of 0002 and 0003 with what has changed in them.
    first, outlook = _module("0002_views.py"), _module("0003_outlook.py")
    replaced = outlook["_replaced"]
    op.execute(_spelt_out(replaced(first["WORKER_CAPACITY"], IDLE)))
    op.execute(_spelt_out(replaced(first["WORKER_STATUS"], ITS_JOB, ITS_ROLE)))
    op.execute(_spelt_out(replaced(first["JOB_STATUS"], outlook["JOB_ETA"], NEXT_WORKERS)))
    op.execute(replaced(first["GPU_SECONDS"], *PLAN_OF_SEGMENT))
    for what, comment in COMMENTS.items():
        quoted = comment.replace("'", "''")
        op.execute(f"COMMENT ON {what} IS '{quoted}'")
    reader = first["READER"]
    for old, new in READER_CHANGES:
        assert reader.count(old) == 1
        reader = reader.replace(old, new)
    op.execute(reader)


def _spelt_out(view: str) -> str:
    assert "<is open>" in view
    return view.replace("<is open>", IS_OPEN.strip())


def _module(name: str) -> dict[str, object]:
    return runpy.run_path(str(Path(__file__).with_name(name)))
