"""What operators ask for while jobs run: a batch paused, a worker gone, a job stopped.

And what they do to a cluster that runs: workers and schedulers of several releases at once.

A pause is said once of the batch and carried by each of its jobs: so the jobs that may be sent are
still found by one short scan of an index, however many of a paused batch would come first.
"""

import runpy
from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"

COLUMNS = """
ALTER TABLE batches ADD COLUMN paused_at timestamptz;
ALTER TABLE jobs ADD COLUMN paused boolean NOT NULL DEFAULT false;
ALTER TABLE workers ADD COLUMN drain_requested_at timestamptz,
    ADD COLUMN protocol integer NOT NULL DEFAULT 0;
ALTER TABLE leadership ADD COLUMN protocol integer, ADD COLUMN version text
"""

# As in 0001 to 0003, without the jobs of paused batches.
INDEXES = """
DROP INDEX jobs_waiting, jobs_shortest, jobs_to_denoise, jobs_last_in_order;
CREATE INDEX jobs_waiting ON jobs (state, model, priority DESC, seq)
    WHERE state IN ('queued', 'encoded', 'denoised') AND dispatched_at IS NULL AND NOT paused;
CREATE INDEX jobs_shortest ON jobs (batch_id, state, model, priority DESC, work, seq)
    INCLUDE (height, width, num_frames, steps)
    WHERE state IN ('queued', 'encoded', 'denoised') AND dispatched_at IS NULL AND NOT paused;
CREATE INDEX jobs_to_denoise ON jobs (model, priority DESC, seq) INCLUDE (steps)
    WHERE state IN ('queued', 'encoding', 'encoded') AND NOT paused;
CREATE INDEX jobs_last_in_order ON jobs (batch_id, priority, seq DESC)
    WHERE state IN ('queued', 'encoding', 'encoded') AND NOT paused
"""

PAUSED = (
    (
        "WHEN reason.code IN ('cancel_requested', 'worker_silent') THEN NULL",
        "WHEN reason.code IN ('cancel_requested', 'worker_silent', 'batch_paused') THEN NULL",
    ),
    (
        """        WHEN 'worker_silent' THEN holder.name || CASE
""",
        """        WHEN 'batch_paused' THEN 'Its batch is paused; ' || CASE
                WHEN job.holder IS NOT NULL THEN holder.name
                    || ' gives the job back at its next step boundary; '
                ELSE '' END
            || '`ddit resume ' || job.batch_id || '` has it go on.'
        WHEN 'worker_silent' THEN holder.name || CASE
""",
    ),
    (
        """                THEN 'worker_silent' END
""",
        """                THEN 'worker_silent'
            WHEN job.paused AND job.state = 'denoising' THEN 'batch_paused' END
        WHEN job.paused THEN 'batch_paused'
""",
    ),
    (
        """         WHERE state = 'denoised' AND dispatched_at IS NULL)
""",
        """         WHERE state = 'denoised' AND dispatched_at IS NULL AND NOT paused)
""",
    ),
    (
        """        SELECT model FROM jobs WHERE state = 'encoded' AND dispatched_at IS NULL
""",
        """        SELECT model FROM jobs
        WHERE state = 'encoded' AND dispatched_at IS NULL AND NOT paused
""",
    ),
    (
        """    WHERE state IN ('queued', 'encoding', 'encoded')
    GROUP BY model, priority, seq >> 6
""",
        """    WHERE state IN ('queued', 'encoding', 'encoded') AND NOT paused
    GROUP BY model, priority, seq >> 6
""",
    ),
    (
        """        AND other.state IN ('queued', 'encoding', 'encoded')
""",
        """        AND other.state IN ('queued', 'encoding', 'encoded')
        AND NOT other.paused
""",
    ),
)
STOPPED_AFTER = (
    """    ) END AS next_workers
FROM jobs job
""",
    """    ) END AS next_workers,
    CASE WHEN job.state = 'cancelled' THEN round(extract(epoch FROM
        job.finished_at - coalesce(job.cancel_requested_at, batch.cancel_requested_at)
    ), 3)::double precision END AS stopped_after_s
FROM jobs job
""",
)
BATCH_PAUSED = (
    (
        """    coalesce(
        CASE WHEN batch.total >""",
        """    CASE WHEN batch.paused_at IS NULL THEN coalesce(
        CASE WHEN batch.total >""",
    ),
    (
        """state IN ('queued', 'encoding', 'encoded')
            ORDER BY""",
        """state IN ('queued', 'encoding', 'encoded')
                AND NOT paused
            ORDER BY""",
    ),
    (
        """    ) AS eta_s,
    batch.created_at""",
        """    ) END AS eta_s,
    batch.created_at""",
    ),
    (
        """    batch.deadline
FROM batches batch
""",
        """    batch.deadline,
    batch.paused_at
FROM batches batch
""",
    ),
)

WISHES_AND_FITNESS = (
    """    ) END AS role
FROM (""",
    """    ) END AS role,
    worker.drain_requested_at,
    worker.protocol,
    CASE WHEN worker.ended_at IS NULL THEN (
        SELECT 'It speaks protocol ' || worker.protocol || ', the scheduler ' || protocol
            || ', so it gets no work: install release ' || version
            || ' of ddit-batch there, and start it again.'
        FROM leadership WHERE protocol <> worker.protocol
    ) END AS unfit_because
FROM (""",
)
# Who speaks another protocol than the scheduler gets no work.
IS_FIT = """state = 'online' AND lease_expires_at > statement_timestamp()
        AND (protocol = (SELECT protocol FROM leadership)) IS NOT FALSE"""
FIT_TO_DECODE = (
    """WHERE phase = 'vae' AND state = 'online' AND lease_expires_at > statement_timestamp())""",
    f"""WHERE phase = 'vae' AND {IS_FIT})""",
)
FIT_ONLINE = (
    """    WHERE state = 'online' AND lease_expires_at > statement_timestamp()
    GROUP BY phase""",
    f"""    WHERE {IS_FIT}
    GROUP BY phase""",
)
FIT = (
    """WHERE worker.state = 'online' AND worker.lease_expires_at > statement_timestamp()
GROUP BY""",
    """WHERE worker.state = 'online' AND worker.lease_expires_at > statement_timestamp()
    AND (worker.protocol = (SELECT protocol FROM leadership)) IS NOT FALSE
GROUP BY""",
)

COMMENTS = {
    "job_status.waiting_for": "Why it waits, as a code; null while it is worked on, and when "
    "final. One of cancel_requested, worker_silent, batch_paused, no_scheduler, no_worker, "
    "model_not_served, message_sent, look_ahead_full, decode_backlog, workers_busy, "
    "next_decision.",
    "job_status.jobs_ahead": "Jobs of the same model that still have to be denoised and come first "
    "in order, not counting those that are denoised now and those of paused batches; null when it "
    "is past that.",
    "batch_progress.eta_s": "Estimated seconds until its last video is complete: the scheduler's, "
    "from what its jobs cost (docs/cost-model.md), the live workers and the batches beside it. "
    "Without a scheduler: until its last job in order has been denoised, as in job_status. Null "
    "when there is nothing to go by, when nothing is left, and while it is paused.",
    "job_status.stopped_after_s": "Seconds from the request of its cancel until it had stopped; "
    "null if it was not cancelled.",
    "worker_status.drain_requested_at": "When a user asked it to leave (`ddit drain`); null: "
    "nobody did.",
    "worker_status.protocol": "What it understands: a number that its release of ddit-batch has; "
    "0: it is older than that.",
    "worker_status.unfit_because": "Why it gets no work although it is online, and what helps; "
    "null: nothing is wrong with it.",
    "worker_capacity.workers": "Online workers of the phase that serve the model; one that drains, "
    "whose lease has run out or that speaks another protocol than the scheduler does not count.",
    "batch_progress.paused_at": "Since when it is paused (`ddit pause`); null: it is not.",
}


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(INDEXES)
    # The views of 0002, 0003 and 0005 with what has changed in them.
    first, outlook, plans = map(_module, ("0002_views.py", "0003_outlook.py", "0005_plans.py"))
    replaced, spelt_out = outlook["_replaced"], plans["_spelt_out"]
    job_status = (
        outlook["JOB_ETA"],
        plans["NEXT_WORKERS"],
        STOPPED_AFTER,
        *PAUSED,
        FIT_TO_DECODE,
        FIT_ONLINE,
    )
    op.execute(spelt_out(replaced(first["JOB_STATUS"], *job_status)))
    batch_progress = (outlook["BATCH_ETA"], outlook["BATCH_WISHES"], *BATCH_PAUSED)
    op.execute(replaced(first["BATCH_PROGRESS"], *batch_progress))
    op.execute(spelt_out(replaced(first["WORKER_CAPACITY"], plans["IDLE"], FIT)))
    worker_status = (plans["ITS_JOB"], plans["ITS_ROLE"], WISHES_AND_FITNESS)
    op.execute(spelt_out(replaced(first["WORKER_STATUS"], *worker_status)))
    for column, comment in COMMENTS.items():
        quoted = comment.replace("'", "''")
        op.execute(f"COMMENT ON COLUMN {column} IS '{quoted}'")


def _module(name: str) -> dict[str, object]:
    return runpy.run_path(str(Path(__file__).with_name(name)))
