"""Causes of failure: what a job failed of, what to do about it, and what workers say is wrong.

A job keeps its newest two checkpoints, and counts apart what is not its own fault: a store that
fails, a worker that hangs. The views say so, and why a model is not served.
"""

import runpy
from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"

COLUMNS = """
ALTER TABLE jobs ADD COLUMN older_checkpoint_key text;
ALTER TABLE jobs ADD COLUMN older_checkpoint_step integer;
ALTER TABLE jobs ADD COLUMN store_failures integer NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN timeouts integer NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN hung_since timestamptz;
CREATE TABLE store_health (
    id            integer PRIMARY KEY,
    failing_since timestamptz,
    probe_after   timestamptz,
    failures      integer NOT NULL DEFAULT 0,
    phase         text,
    message       text,
    CONSTRAINT store_health_one_row CHECK (id = 1)
);
INSERT INTO store_health (id) VALUES (1);
CREATE TABLE model_problems (
    worker  text NOT NULL,
    model   text NOT NULL,
    phase   text NOT NULL,
    message text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (worker, model),
    CONSTRAINT model_problems_phase CHECK (phase IN ('encode', 'dit', 'vae'))
)
"""

# As ddit_batch/causes.py has them: a test holds the two together.
CAUSES = (
    (
        "out_of_memory",
        "The video does not fit into the memory of a worker's device.",
        (
            "Use a smaller size or fewer frames, a smaller dtype in the model config, or a "
            "device with more memory; more workers for one video help only as far as its "
            "activations fill it."
        ),
    ),
    (
        "worker_lost",
        (
            "Too many workers died while they worked on the job, so that it is held to be what "
            "kills them."
        ),
        (
            "See the workers' logs for how they died; try the line alone, or with a smaller "
            "size; `ddit retry` gives the job all of its tries again."
        ),
    ),
    (
        "group_broken",
        "The workers that denoised the job together could not go on, again and again.",
        ("See the workers' logs; check the network and the GPUs of that node, or limit the dop."),
    ),
    (
        "handoff_lost",
        "What one phase made for the next was missing or damaged, again and again.",
        "See whether something deletes or changes files in the store; then `ddit retry`.",
    ),
    (
        "storage_failed",
        "The artifact store did not take or give what it should: full, forbidden or away.",
        ("Free some space, or set DDIT_ARTIFACTS_URL to a place that works; then `ddit retry`."),
    ),
    (
        "model_unavailable",
        "The model could not be loaded or is not set up on the worker.",
        (
            "Check DDIT_MODELS and the model's files on the workers; `ddit doctor` says what is "
            "missing; then `ddit retry`."
        ),
    ),
    (
        "timeout",
        "The job did not go on for too long, on every worker that tried it.",
        (
            "See the workers' logs; try a smaller size; if it only takes long, raise "
            "DDIT_HUNG_AFTER_S or the limit of its phase."
        ),
    ),
    (
        "phase_failed",
        "The phase cannot do what the request asks for.",
        "The message says what is wrong: change the line and submit it again.",
    ),
    (
        "unexpected_error",
        "An error that ddit-batch does not know.",
        (
            "The worker's log has the details; `ddit retry` tries again; if it comes back, "
            "report it."
        ),
    ),
)

FAILURE_CAUSES = """
CREATE VIEW failure_causes AS
SELECT code, meaning, advice FROM (VALUES
<rows>
) AS cause (code, meaning, advice)
"""

ADVICE = (
    """
FROM jobs job
LEFT JOIN batches batch""",
    """,
    CASE WHEN job.state = 'failed' THEN (
        SELECT cause.advice FROM failure_causes cause WHERE cause.code = job.failure_code
    ) END AS advice,
    job.store_failures,
    job.timeouts
FROM jobs job
LEFT JOIN batches batch""",
)
STORE_FAILING = (
    (
        """        WHEN job.dispatched_at IS NOT NULL THEN 'message_sent'
""",
        """        WHEN job.dispatched_at IS NULL AND the.store_fails THEN 'store_failing'
        WHEN job.dispatched_at IS NOT NULL THEN 'message_sent'
""",
    ),
    (
        """        WHEN 'message_sent' THEN 'Sent to""",
        """        WHEN 'store_failing' THEN (
            SELECT 'The artifact store has failed for '
                || round(extract(epoch FROM statement_timestamp() - failing_since))
                || ' s, the last time with: ' || message || '; until a try succeeds, '
                || CASE WHEN probe_after > statement_timestamp() THEN 'the next in '
                    || round(extract(epoch FROM probe_after - statement_timestamp())) || ' s, '
                    ELSE '' END || 'no new work is sent.'
            FROM store_health)
        WHEN 'message_sent' THEN 'Sent to""",
    ),
    (
        """        (SELECT decode_backlog FROM leadership) AS decode_backlog,
""",
        """        (SELECT decode_backlog FROM leadership) AS decode_backlog,
        (SELECT failing_since IS NOT NULL FROM store_health) AS store_fails,
""",
    ),
)
# Behind the sentences of no_worker and model_not_served.
ITS_PROBLEM = """
            || coalesce((
                SELECT ' ' || problem.worker || ' could not load ' || problem.model || ' '
                    || round(extract(epoch FROM statement_timestamp() - problem.at))
                    || ' s ago: ' || problem.message
                FROM model_problems problem
                WHERE problem.model = job.model
                ORDER BY problem.phase = lack.phase DESC, problem.at DESC LIMIT 1
            ), '')
"""
MODEL_PROBLEMS = tuple(
    (
        f"""', so nothing is encoded ahead.' ELSE '.' END
        WHEN '{following}'""",
        f"""', so nothing is encoded ahead.' ELSE '.' END{ITS_PROBLEM}        WHEN '{following}'""",
    )
    for following in ("model_not_served", "store_failing")
)

NOT_HUNG = (
    """ IS NOT FALSE
GROUP BY""",
    """ IS NOT FALSE
    AND worker.hung_since IS NULL
GROUP BY""",
)
HUNG_SINCE = (
    """
FROM (SELECT DISTINCT ON (name)""",
    """,
    CASE WHEN worker.ended_at IS NULL THEN worker.hung_since END AS hung_since
FROM (SELECT DISTINCT ON (name)""",
)

COMMENTS = {
    "VIEW failure_causes": "What a job can fail of: one row for each failure_code.",
    "COLUMN failure_causes.code": "The word in job_status.failure_code and in errors.jsonl.",
    "COLUMN failure_causes.meaning": "What has happened.",
    "COLUMN failure_causes.advice": "What to do about it.",
    "COLUMN job_status.failure_code": "Code of the last attempt's failure; of a failed job, what "
    "it failed of: see the view failure_causes.",
    "COLUMN job_status.advice": "Of a failed job, what to do about its failure_code.",
    "COLUMN job_status.store_failures": "Attempts that ended because the artifact store failed "
    "while it did not for others; they do not count as failures.",
    "COLUMN job_status.timeouts": "Attempts that were taken from their worker because it did not "
    "go on.",
    "COLUMN job_status.waiting_for": "Why it waits, as a code; null while it is worked on, and "
    "when final. One of cancel_requested, worker_silent, batch_paused, no_scheduler, no_worker, "
    "model_not_served, store_failing, message_sent, look_ahead_full, decode_backlog, workers_busy, "
    "next_decision.",
    "COLUMN worker_capacity.workers": "Online workers of the phase that serve the model; one that "
    "drains, that hangs, whose lease has run out or that speaks another protocol than the "
    "scheduler does not count.",
    "COLUMN worker_status.hung_since": "When an attempt was taken from it because it did not go "
    "on; it gets no work until it has answered. Null for all others.",
    "COLUMN gpu_seconds.reason": "For dit, why the segment began: start, resume, older_checkpoint "
    "(the newest could not be read) or checkpoint_lost for the first of an attempt; after that "
    "grow, shrink or change, by a plan, or group_broken.",
}

READER_CHANGES = (
    ("CREATE FUNCTION ddit_grant_reader", "CREATE OR REPLACE FUNCTION ddit_grant_reader"),
    (
        "gpu_seconds TO ddit_reader",
        "gpu_seconds, decision_log, group_plans, failure_causes TO ddit_reader",
    ),
)


def upgrade() -> None:
    op.execute(COLUMNS)
    rows = ",\n".join(f"    ({', '.join(map(_quoted, cause))})" for cause in CAUSES)
    op.execute(FAILURE_CAUSES.replace("<rows>", rows))
    # The views of 0002, 0003, 0005 and 0006 with what has changed in them.
    first, outlook, plans, operations = map(
        _module, ("0002_views.py", "0003_outlook.py", "0005_plans.py", "0006_operations.py")
    )
    replaced, spelt_out = outlook["_replaced"], plans["_spelt_out"]
    capacity = (plans["IDLE"], operations["FIT"], NOT_HUNG)
    op.execute(spelt_out(replaced(first["WORKER_CAPACITY"], *capacity)))
    worker_status = (
        plans["ITS_JOB"],
        plans["ITS_ROLE"],
        operations["WISHES_AND_FITNESS"],
        HUNG_SINCE,
    )
    op.execute(spelt_out(replaced(first["WORKER_STATUS"], *worker_status)))
    job_status = (
        outlook["JOB_ETA"],
        plans["NEXT_WORKERS"],
        operations["STOPPED_AFTER"],
        *operations["PAUSED"],
        operations["FIT_TO_DECODE"],
        operations["FIT_ONLINE"],
        ADVICE,
        *STORE_FAILING,
        *MODEL_PROBLEMS,
    )
    op.execute(spelt_out(replaced(first["JOB_STATUS"], *job_status)))
    for what, comment in COMMENTS.items():
        op.execute(f"COMMENT ON {what} IS {_quoted(comment)}")
    reader = first["READER"]
    for old, new in READER_CHANGES:
        assert reader.count(old) == 1
        reader = reader.replace(old, new)
    op.execute(reader)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _module(name: str) -> dict[str, object]:
    return runpy.run_path(str(Path(__file__).with_name(name)))
