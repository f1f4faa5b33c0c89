"""What decisions and estimates need beyond 0002: wishes for a batch, work of a job, time left.

``jobs.work`` orders the jobs of one model by what is left of them while they wait: pixels x frames
x steps, which needs no profile and grows with the cost. ``jobs_shortest`` has the waiting jobs of a
batch in that order, with all that a cost model asks of them, so that neither the scheduler's window
nor its sums over all that wait read a job's row. The estimates are the scheduler's: views show them
while it leads, and go back to the pace of late (0002) when it does not.
"""

import runpy
from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"

COLUMNS = """
ALTER TABLE batches
    ADD COLUMN share double precision NOT NULL DEFAULT 1,
    ADD COLUMN deadline timestamptz,
    ADD COLUMN eta_at timestamptz,
    ADD CONSTRAINT batches_share CHECK (share > 0 AND share < 'Infinity');
ALTER TABLE jobs ADD COLUMN work bigint, ADD COLUMN eta_at timestamptz;
UPDATE jobs SET work =
    height::bigint * width * num_frames * (steps - coalesce(checkpoint_step, 0));
ALTER TABLE jobs ALTER COLUMN work SET NOT NULL
"""

INDEXES = """
CREATE INDEX jobs_shortest ON jobs (batch_id, state, model, priority DESC, work, seq)
    INCLUDE (height, width, num_frames, steps)
    WHERE state IN ('queued', 'encoded', 'denoised') AND dispatched_at IS NULL;
CREATE INDEX jobs_succeeded ON jobs (finished_at) WHERE state = 'succeeded'
"""

# The advisory lock of the scheduler that leads.
SCHEDULER_LEADS = """
CREATE FUNCTION ddit_scheduler_leads() RETURNS boolean LANGUAGE sql STABLE AS $leads$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
                   WHERE locktype = 'advisory' AND granted
                       AND (classid, objid, objsubid) = (0, 7283002, 1)
                       AND database = (SELECT oid FROM pg_catalog.pg_database
                                       WHERE datname = current_database()))
$leads$;
COMMENT ON FUNCTION ddit_scheduler_leads IS
    'Whether a scheduler leads, so that its estimates are kept up to date.'
"""

JOB_ETA = (
    """        WHEN job.state = 'denoising' THEN
            (job.steps - job.step) * coalesce(job.step_s, pace.step_s)
""",
    """        WHEN job.eta_at IS NOT NULL THEN
            greatest(extract(epoch FROM job.eta_at - statement_timestamp())::double precision, 0)
        WHEN job.state = 'denoising' THEN
            (job.steps - job.step) * coalesce(job.step_s, pace.step_s)
""",
)
BATCH_ETA = (
    """    coalesce(
        -- The job that comes last in order decides; when all have begun, the slowest.
""",
    """    coalesce(
        CASE WHEN batch.total > jobs.succeeded + jobs.failed + jobs.cancelled
                AND batch.eta_at > statement_timestamp()
                AND (SELECT ddit_scheduler_leads()) THEN
            round(extract(epoch FROM batch.eta_at - statement_timestamp()), 1)::double precision
        END,
        -- The job that comes last in order decides; when all have begun, the slowest.
""",
)
BATCH_WISHES = (
    """    batch.out_url
FROM batches batch
""",
    """    batch.out_url,
    batch.share,
    batch.deadline
FROM batches batch
""",
)

COMMENTS = {
    "job_status.starvation_s": "Starvation time: what the job has lost since its last grant by "
    "having fewer workers than are best for it. 0 while it is not denoised, and for a job that has "
    "as many as are best.",
    "job_status.eta_s": "Estimated seconds until its video is complete, of a job that is denoised "
    "or has been: the scheduler's, from what a step costs (docs/cost-model.md) as live steps have "
    "refined it, the steps left, and the decoding; 0 when that is past. Of one that comes later: "
    "until its denoising ends, from the mean pace of its model (view model_pace), the steps ahead "
    "of it in order, and the online DiT workers that serve the model. Null when there is nothing "
    "to go by, and when final.",
    "waiting_jobs.eta_s": "Estimated seconds as in job_status; null when there is nothing to go "
    "by.",
    "batch_progress.eta_s": "Estimated seconds until its last video is complete: the scheduler's, "
    "from what its jobs cost (docs/cost-model.md), the live workers and the batches beside it. "
    "Without a scheduler: until its last job in order has been denoised, as in job_status. Null "
    "when there is nothing to go by, and when nothing is left.",
    "batch_progress.share": "Its weight against other batches: twice the share, twice the workers "
    "while both want them, under a policy that shares.",
    "batch_progress.deadline": "When its user wants all of it; null: never said.",
}


def upgrade() -> None:
    for statements in (COLUMNS, INDEXES, SCHEDULER_LEADS):
        op.execute(statements)
    # The views of 0002 with what has changed in them.
    before = runpy.run_path(str(Path(__file__).with_name("0002_views.py")))
    op.execute(_replaced(before["JOB_STATUS"], JOB_ETA))
    op.execute(_replaced(before["BATCH_PROGRESS"], BATCH_ETA, BATCH_WISHES))
    for column, comment in COMMENTS.items():
        quoted = comment.replace("'", "''")
        op.execute(f"COMMENT ON COLUMN {column} IS '{quoted}'")


def _replaced(view: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert view.count(old) == 1
        view = view.replace(old, new)
    return view.replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1)
