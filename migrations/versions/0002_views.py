"""What users ask in SQL: documented views, and a role that can read them and nothing else.

The views are the public interface of the database; tables may change with any release. Every view
and column has a comment, which is its documentation. Views are written to be planned as part of the
query around them: no CTE, no volatile function, and what a query does not name costs nothing. So
one job or one batch among 100,000 is found at once.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

COLUMNS = """
ALTER TABLE jobs ADD COLUMN starvation_s double precision NOT NULL DEFAULT 0;
ALTER TABLE leadership ADD COLUMN look_ahead integer;
ALTER TABLE leadership ADD COLUMN decode_backlog integer
"""

INDEXES = """
CREATE INDEX jobs_to_denoise ON jobs (model, priority DESC, seq) INCLUDE (steps)
    WHERE state IN ('queued', 'encoding', 'encoded');
CREATE INDEX jobs_last_in_order ON jobs (batch_id, priority, seq DESC)
    WHERE state IN ('queued', 'encoding', 'encoded');
CREATE INDEX attempts_finished ON attempts (incarnation) WHERE outcome = 'finish'
"""

# How many jobs of a model come before a job is a prefix sum over all that wait. To have it for one
# job and for all of them at a fair price, the sum goes over blocks of 64 arrivals (seq >> 6), and
# only the rest of the job's own block is counted one by one.
JOB_STATUS = """
CREATE VIEW job_status AS
SELECT
    job.id AS job_id,
    job.batch_id,
    job.custom_id,
    job.line,
    job.request ->> 'prompt' AS prompt,
    job.model,
    job.width || 'x' || job.height || 'x' || job.num_frames AS shape,
    job.priority,
    job.seq AS arrival,
    job.state,
    its.phase,
    job.step,
    job.steps,
    CASE WHEN job.state = 'denoising' THEN job.dop END AS dop,
    CASE
        WHEN segment.workers IS NOT NULL THEN segment.workers
        WHEN holder.name IS NOT NULL THEN ARRAY[holder.name]
    END AS workers,
    round(extract(epoch FROM statement_timestamp() - job.state_since), 3)::double precision
        AS in_state_s,
    CASE WHEN job.dispatched_at IS NOT NULL THEN job.attempt END AS attempt,
    job.starvation_s,
    round(CASE
        WHEN reason.code IN ('cancel_requested', 'worker_silent') THEN NULL
        WHEN job.state = 'denoising' THEN
            (job.steps - job.step) * coalesce(job.step_s, pace.step_s)
        WHEN its.way_to_dit THEN
            (coalesce(running.steps, 0) + coalesce(before.steps, 0) + beside.steps)
            * pace.worker_s / dit.workers
            + (job.steps - coalesce(job.checkpoint_step, 0)) * pace.step_s
    END::numeric, 1)::double precision AS eta_s,
    queue.jobs_ahead,
    reason.code AS waiting_for,
    CASE reason.code
        WHEN 'cancel_requested' THEN 'A cancel was requested; '
            || coalesce(holder.name || ' has been told to stop.',
                        'the scheduler ends the job at its next decision.')
        WHEN 'worker_silent' THEN holder.name || CASE
                WHEN holder.ended_at IS NOT NULL THEN ' is ' || holder.state
                ELSE ' has not renewed its lease, which ran out '
                    || round(extract(epoch FROM
                             statement_timestamp() - holder.lease_expires_at)) || ' s ago'
            END || '; the scheduler takes the job back.'
        WHEN 'no_scheduler' THEN 'No scheduler is running: `ddit up` or `ddit scheduler` '
            || 'starts one.'
        WHEN 'no_worker' THEN 'No ' || lack.label || ' worker is online'
            || CASE WHEN lack.phase <> its.phase THEN ', so nothing is encoded ahead.' ELSE '.' END
        WHEN 'model_not_served' THEN 'None of the online ' || lack.label || ' workers ('
            || online.workers || ') serves the model ' || job.model
            || CASE WHEN lack.phase <> its.phase THEN ', so nothing is encoded ahead.' ELSE '.' END
        WHEN 'message_sent' THEN 'Sent to the queue ' || job.queue || ' '
            || round(extract(epoch FROM statement_timestamp() - job.dispatched_at))
            || ' s ago, not yet taken'
            || CASE
                WHEN own.idle = 0 AND its.phase <> 'dit' THEN
                    ': every ' || its.label || ' worker that serves the model ' || job.model
                    || ' is busy (' || own.workers || ').'
                ELSE '.'
            END
        WHEN 'look_ahead_full' THEN 'Enough jobs of the model ' || job.model
            || ' are encoded ahead: ' || encoded.jobs || ' for ' || dit.workers
            || CASE dit.workers WHEN 1 THEN ' DiT worker' ELSE ' DiT workers' END
            || ' (the limit is ' || the.look_ahead || ' each); ' || queue.words || '.'
        WHEN 'decode_backlog' THEN 'The VAE is behind: ' || the.jobs_to_decode
            || ' jobs wait for it, and no new DiT starts while ' || the.decode_backlog
            || ' or more do (VAE workers online: ' || the.vae_workers || ').'
        WHEN 'workers_busy' THEN CASE own.workers
                WHEN 1 THEN 'The one DiT worker that serves the model ' || job.model || ' is busy; '
                ELSE 'All ' || own.workers || ' DiT workers that serve the model ' || job.model
                    || ' are busy; '
            END || queue.words || '.'
        WHEN 'next_decision' THEN CASE
            WHEN its.phase = 'dit' THEN own.idle || ' of ' || own.workers
                || ' DiT workers that serve the model ' || job.model || ' idle; '
                || queue.words || '; the policy decides next.'
            ELSE 'Nothing is in its way; ' || coalesce(queue.words || '; ', '')
                || 'the scheduler decides next.'
        END
    END AS waiting_because,
    job.failure_code,
    job.failure_message,
    job.failures,
    job.worker_losses,
    job.artifact_key,
    job.created_at,
    coalesce(job.cancel_requested_at, batch.cancel_requested_at) AS cancel_requested_at,
    job.finished_at
FROM jobs job
LEFT JOIN batches batch ON batch.id = job.batch_id
LEFT JOIN workers holder ON holder.incarnation = job.holder
LEFT JOIN segments segment ON segment.job_id = job.id AND segment.ended_at IS NULL
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN job.state IN ('queued', 'encoding') THEN 'encode'
            WHEN job.state IN ('encoded', 'denoising') THEN 'dit'
            WHEN job.state IN ('denoised', 'decoding') THEN 'vae'
        END AS phase,
        CASE
            WHEN job.state IN ('queued', 'encoding') THEN 'encode'
            WHEN job.state IN ('encoded', 'denoising') THEN 'DiT'
            WHEN job.state IN ('denoised', 'decoding') THEN 'VAE'
        END AS label,
        job.state IN ('queued', 'encoding', 'encoded') AS way_to_dit
) its
CROSS JOIN LATERAL (
    SELECT
        (SELECT look_ahead FROM leadership) AS look_ahead,
        (SELECT decode_backlog FROM leadership) AS decode_backlog,
        (SELECT count(*) FROM jobs
         WHERE state = 'denoised' AND dispatched_at IS NULL)
        + (SELECT count(*) FROM jobs
           WHERE state = 'denoised' AND dispatched_at IS NOT NULL) AS jobs_to_decode,
        (SELECT count(*) FROM workers
         WHERE phase = 'vae' AND state = 'online' AND lease_expires_at > statement_timestamp())
            AS vae_workers,
        -- The advisory lock of the scheduler that leads.
        EXISTS (SELECT FROM pg_locks
                WHERE locktype = 'advisory' AND granted
                    AND (classid, objid, objsubid) = (0, 7283002, 1)
                    AND database = (SELECT oid FROM pg_database
                                    WHERE datname = current_database())) AS scheduler_leads
) the
-- Workers that can take the phase that the job waits for, and workers that can denoise it.
LEFT JOIN worker_capacity own ON own.phase = its.phase AND own.model = job.model
LEFT JOIN worker_capacity dit ON dit.phase = 'dit' AND dit.model = job.model
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN own.workers IS NULL THEN its.phase WHEN ahead_of_nobody THEN 'dit' END AS phase,
        CASE WHEN own.workers IS NULL THEN its.label WHEN ahead_of_nobody THEN 'DiT' END AS label
    FROM (SELECT job.state = 'queued' AND job.dispatched_at IS NULL AND dit.workers IS NULL)
        AS nobody (ahead_of_nobody)
) lack
LEFT JOIN (
    SELECT phase, count(*) AS workers FROM workers
    WHERE state = 'online' AND lease_expires_at > statement_timestamp()
    GROUP BY phase
) online ON online.phase = lack.phase
LEFT JOIN (
    SELECT model, count(*) AS jobs FROM (
        SELECT model FROM jobs WHERE state = 'encoded' AND dispatched_at IS NULL
        UNION ALL
        SELECT model FROM jobs
        WHERE dispatched_at IS NOT NULL AND state IN ('queued', 'encoding')
    ) ahead GROUP BY model
) encoded ON encoded.model = job.model
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN its.phase IS NULL THEN NULL
        WHEN job.cancel_requested_at IS NOT NULL OR batch.cancel_requested_at IS NOT NULL
            THEN 'cancel_requested'
        WHEN job.holder IS NOT NULL THEN CASE
            WHEN holder.ended_at IS NOT NULL OR holder.lease_expires_at < statement_timestamp()
                THEN 'worker_silent' END
        WHEN job.dispatched_at IS NULL AND NOT the.scheduler_leads THEN 'no_scheduler'
        WHEN lack.phase IS NOT NULL AND online.workers IS NULL THEN 'no_worker'
        WHEN lack.phase IS NOT NULL THEN 'model_not_served'
        WHEN job.dispatched_at IS NOT NULL THEN 'message_sent'
        WHEN job.state = 'queued' AND encoded.jobs >= the.look_ahead * dit.workers
            THEN 'look_ahead_full'
        WHEN job.state = 'encoded' AND the.jobs_to_decode >= the.decode_backlog
            THEN 'decode_backlog'
        WHEN job.state = 'encoded' AND own.idle = 0 THEN 'workers_busy'
        ELSE 'next_decision'
    END AS code
) reason
LEFT JOIN model_pace pace ON pace.model = job.model
LEFT JOIN (
    SELECT model, sum(steps - step) AS steps FROM jobs
    WHERE dispatched_at IS NOT NULL AND state = 'denoising'
    GROUP BY model
) running ON running.model = job.model
LEFT JOIN (
    SELECT
        model,
        priority,
        seq >> 6 AS block,
        sum(count(*)) OVER earlier AS jobs,
        sum(sum(steps)) OVER earlier AS steps
    FROM jobs
    WHERE state IN ('queued', 'encoding', 'encoded')
    GROUP BY model, priority, seq >> 6
    WINDOW earlier AS (PARTITION BY model ORDER BY priority DESC, seq >> 6
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
) before ON before.model = job.model AND before.priority = job.priority
    AND before.block = job.seq >> 6
LEFT JOIN LATERAL (
    SELECT count(*) AS jobs, coalesce(sum(other.steps), 0) AS steps FROM jobs other
    WHERE its.way_to_dit
        AND other.state IN ('queued', 'encoding', 'encoded')
        AND other.model = job.model
        AND other.priority = job.priority
        AND other.seq >= job.seq >> 6 << 6
        AND other.seq < job.seq
) beside ON true
CROSS JOIN LATERAL (
    SELECT (coalesce(before.jobs, 0) + beside.jobs)::bigint AS jobs
) ahead
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN its.way_to_dit THEN ahead.jobs END AS jobs_ahead,
        CASE
            WHEN NOT its.way_to_dit THEN NULL
            WHEN ahead.jobs = 0 THEN 'no job is ahead'
            WHEN ahead.jobs = 1 THEN '1 job is ahead'
            ELSE ahead.jobs || ' jobs are ahead'
        END AS words
) queue
"""

WORKER_CAPACITY = """
CREATE VIEW worker_capacity AS
SELECT
    worker.phase,
    served.model,
    count(*) AS workers,
    count(*) FILTER (WHERE NOT EXISTS (
        SELECT FROM jobs job
        WHERE job.dispatched_at IS NOT NULL
            AND (job.holder = worker.incarnation OR job.queue = worker.phase || '.' || worker.name)
    ) AND NOT EXISTS (
        SELECT FROM segments segment
        WHERE segment.ended_at IS NULL AND worker.name = ANY (segment.workers)
    )) AS idle
FROM workers worker
CROSS JOIN unnest(worker.models) AS served (model)
WHERE worker.state = 'online' AND worker.lease_expires_at > statement_timestamp()
GROUP BY worker.phase, served.model
"""

MODEL_PACE = """
CREATE VIEW model_pace AS
SELECT
    model,
    sum(steps) AS steps,
    sum(seconds) / sum(steps) AS step_s,
    sum(seconds * dop) / sum(steps) AS worker_s
FROM (
    SELECT
        job.model,
        segment.dop,
        coalesce(segment.to_step, job.step) - segment.from_step AS steps,
        CASE
            WHEN segment.ended_at IS NULL THEN job.step_s * (job.step - segment.from_step)
            ELSE extract(epoch FROM segment.ended_at - segment.started_at)::double precision
        END AS seconds
    FROM segments segment
    JOIN jobs job ON job.id = segment.job_id
    ORDER BY segment.id DESC
    LIMIT 64
) recent
WHERE steps > 0 AND seconds IS NOT NULL
GROUP BY model
"""

WAITING_JOBS = """
CREATE VIEW waiting_jobs AS
SELECT job_id, batch_id, custom_id, model, shape, priority, arrival, state, phase, waiting_for,
       waiting_because, jobs_ahead, in_state_s, eta_s
FROM job_status
WHERE waiting_for IS NOT NULL
ORDER BY priority DESC, arrival
"""

BATCH_PROGRESS = """
CREATE VIEW batch_progress AS
SELECT
    batch.id AS batch_id,
    batch.name,
    batch.total,
    jobs.queued,
    jobs.encoding,
    jobs.encoded,
    jobs.denoising,
    jobs.denoised,
    jobs.decoding,
    jobs.succeeded,
    jobs.failed,
    jobs.cancelled,
    batch.total - jobs.succeeded - jobs.failed - jobs.cancelled AS unfinished,
    jobs.steps_done,
    jobs.steps_total,
    round(100.0 * jobs.steps_done / nullif(jobs.steps_total, 0), 1)::double precision AS percent,
    coalesce(
        -- The job that comes last in order decides; when all have begun, the slowest.
        (SELECT eta_s FROM job_status WHERE job_id = (
            SELECT id FROM jobs
            WHERE batch_id = batch.id AND state IN ('queued', 'encoding', 'encoded')
            ORDER BY priority, seq DESC
            LIMIT 1)),
        (SELECT max(eta_s) FROM job_status WHERE batch_id = batch.id AND state = 'denoising')
    ) AS eta_s,
    batch.created_at,
    jobs.first_finished_at,
    jobs.last_finished_at,
    batch.cancel_requested_at,
    batch.out_url
FROM batches batch
LEFT JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE state = 'queued') AS queued,
        count(*) FILTER (WHERE state = 'encoding') AS encoding,
        count(*) FILTER (WHERE state = 'encoded') AS encoded,
        count(*) FILTER (WHERE state = 'denoising') AS denoising,
        count(*) FILTER (WHERE state = 'denoised') AS denoised,
        count(*) FILTER (WHERE state = 'decoding') AS decoding,
        count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
        count(*) FILTER (WHERE state = 'failed') AS failed,
        count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
        coalesce(sum(step) FILTER (WHERE state NOT IN ('failed', 'cancelled')), 0) AS steps_done,
        coalesce(sum(steps) FILTER (WHERE state NOT IN ('failed', 'cancelled')), 0) AS steps_total,
        min(finished_at) AS first_finished_at,
        max(finished_at) AS last_finished_at
    FROM jobs WHERE batch_id = batch.id
) jobs ON true
"""

WORKER_STATUS = """
CREATE VIEW worker_status AS
SELECT
    worker.name,
    worker.phase,
    worker.host,
    worker.node,
    worker.device,
    worker.models,
    worker.version,
    worker.state,
    worker.incarnation,
    CASE WHEN worker.ended_at IS NULL THEN
        round(extract(epoch FROM worker.lease_expires_at - statement_timestamp()), 3)
        ::double precision
    END AS lease_left_s,
    CASE WHEN worker.ended_at IS NULL THEN coalesce(
        (SELECT id FROM jobs WHERE dispatched_at IS NOT NULL AND holder = worker.incarnation),
        (SELECT job_id FROM segments WHERE ended_at IS NULL AND worker.name = ANY (workers) LIMIT 1)
    ) END AS job_id,
    (SELECT count(*) FROM attempts attempt
     JOIN workers life ON life.incarnation = attempt.incarnation
     WHERE attempt.outcome = 'finish' AND life.name = worker.name) AS jobs_done,
    worker.registered_at,
    least(worker.lease_expires_at, coalesce(worker.ended_at, statement_timestamp())) AS last_seen
FROM (SELECT DISTINCT ON (name) * FROM workers ORDER BY name, incarnation DESC) worker
"""

PHASE_LATENCY = """
CREATE VIEW phase_latency AS
SELECT
    attempt.phase,
    job.model,
    job.width || 'x' || job.height || 'x' || job.num_frames AS shape,
    count(*) AS attempts,
    avg(took.seconds) AS mean_s,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY took.seconds) AS p50_s,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY took.seconds) AS p95_s,
    max(took.seconds) AS max_s
FROM attempts attempt
JOIN jobs job ON job.id = attempt.job_id
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM attempt.ended_at - attempt.claimed_at)::double precision AS seconds
) took
WHERE attempt.outcome = 'finish'
GROUP BY attempt.phase, job.model, job.width, job.height, job.num_frames
"""

GPU_SECONDS = """
CREATE VIEW gpu_seconds AS
SELECT
    job.batch_id,
    use.job_id,
    job.custom_id,
    job.model,
    job.width || 'x' || job.height || 'x' || job.num_frames AS shape,
    use.phase,
    use.attempt,
    use.segment,
    use.reason,
    use.workers,
    use.dop,
    use.from_step,
    CASE WHEN use.segment IS NOT NULL
        THEN coalesce(use.to_step, greatest(job.step, use.from_step)) END AS to_step,
    use.started_at,
    use.ended_at,
    took.seconds,
    took.seconds * use.dop AS gpu_seconds
FROM (
    SELECT job_id, 'dit' AS phase, attempt, id AS segment, reason, workers, dop,
           from_step, to_step, started_at, ended_at
    FROM segments
    UNION ALL
    SELECT attempt.job_id, attempt.phase, attempt.number, NULL, NULL, ARRAY[worker.name], 1,
           NULL, NULL, attempt.claimed_at, attempt.ended_at
    FROM attempts attempt
    JOIN workers worker ON worker.incarnation = attempt.incarnation
    WHERE attempt.phase <> 'dit'
) use
JOIN jobs job ON job.id = use.job_id
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM coalesce(use.ended_at, statement_timestamp()) - use.started_at)
        ::double precision AS seconds
) took
"""


VIEWS = (
    WORKER_CAPACITY,
    MODEL_PACE,
    JOB_STATUS,
    WAITING_JOBS,
    BATCH_PROGRESS,
    WORKER_STATUS,
    PHASE_LATENCY,
    GPU_SECONDS,
)

COMMENTS = {
    "worker_capacity": {
        "": "What the online workers can take now: one row for each phase and model.",
        "phase": "encode, dit or vae.",
        "model": "A model that they serve.",
        "workers": "Online workers of the phase that serve the model; one that drains or whose "
        "lease has run out does not count.",
        "idle": "Those of them that work on nothing and to which nothing has been sent.",
    },
    "model_pace": {
        "": "How fast each model was denoised of late, in the last 64 segments of all models.",
        "model": "The model.",
        "steps": "Steps that the figures rest on.",
        "step_s": "Mean seconds of a step, over all shapes and dops, with what a segment spends "
        "beside its steps.",
        "worker_s": "Mean worker-seconds of a step: seconds times dop.",
    },
    "job_status": {
        "": "One row a job: what it is, where it is, why it waits.",
        "job_id": "The batch and the line number.",
        "batch_id": "The batch.",
        "custom_id": "The user's name for the line; the video is named for it.",
        "line": "Line number in the file, from 1.",
        "prompt": "The prompt.",
        "model": "Name of the model.",
        "shape": "Width x height x frames.",
        "priority": "Higher goes first.",
        "arrival": "Order of arrival over all batches; decides among equal priorities.",
        "state": "queued, encoding, encoded, denoising, denoised, decoding, succeeded, failed or "
        "cancelled: see docs/states.md.",
        "phase": "The phase that it waits for or is in: encode, dit or vae; null when final.",
        "step": "Denoising steps done, as last reported.",
        "steps": "Denoising steps in all.",
        "dop": "Workers that denoise it together now; null while nobody does.",
        "workers": "Names of the workers that work on it now, the leader first; null while nobody "
        "does.",
        "in_state_s": "Seconds since it came into this state.",
        "attempt": "Number of the live attempt at this phase, sent or claimed; null while "
        "there is none. Flower shows the second attempt as b1-000004.dit.a2.",
        "starvation_s": "Starvation time: what the job has lost since its last grant by having "
        "fewer workers than are best for it. 0 as long as the policy does not resize.",
        "eta_s": "Seconds until its denoising ends. Of a job that is denoised now: the steps left "
        "times the time of a recent step. Of one that comes later: an estimate from the mean pace "
        "of its model (view model_pace), the steps ahead of it in order, and the online DiT "
        "workers that serve the model. Null when there is nothing to go by, and after denoising.",
        "jobs_ahead": "Jobs of the same model that still have to be denoised and come first in "
        "order, not counting those that are denoised now; null when it is past that.",
        "waiting_for": "Why it waits, as a code; null while it is worked on, and when final. One "
        "of cancel_requested, worker_silent, no_scheduler, no_worker, model_not_served, "
        "message_sent, look_ahead_full, decode_backlog, workers_busy, next_decision.",
        "waiting_because": "The same as a sentence, with the numbers and names of this moment.",
        "failure_code": "Code of the last attempt's failure; of a failed job, what it failed of.",
        "failure_message": "The same for people.",
        "failures": "Attempts that ended with a cause of their own.",
        "worker_losses": "Attempts that ended because their worker was lost.",
        "artifact_key": "Where the video is in the artifact store; null until it has succeeded.",
        "created_at": "When it was submitted.",
        "cancel_requested_at": "When its cancel, or that of its batch, was requested.",
        "finished_at": "When it came into its final state; null before.",
    },
    "waiting_jobs": {
        "": "The jobs that wait, in order, with the reason. Columns as in job_status.",
        "job_id": "The batch and the line number.",
        "batch_id": "The batch.",
        "custom_id": "The user's name for the line.",
        "model": "Name of the model.",
        "shape": "Width x height x frames.",
        "priority": "Higher goes first.",
        "arrival": "Order of arrival over all batches; decides among equal priorities.",
        "state": "Where it waits.",
        "phase": "The phase that it waits for.",
        "waiting_for": "Why it waits, as a code.",
        "waiting_because": "The same as a sentence, with the numbers and names of this moment.",
        "jobs_ahead": "Jobs of the same model that still have to be denoised and come first.",
        "in_state_s": "Seconds since it came into this state.",
        "eta_s": "Estimated seconds until its denoising ends; null when there is nothing to go by.",
    },
    "batch_progress": {
        "": "One row a batch: how far it is.",
        "batch_id": "The batch.",
        "name": "Name of the submitted file.",
        "total": "Jobs in all: lines of the file.",
        "queued": "Jobs that wait for their encode phase.",
        "encoding": "Jobs whose prompt is being encoded.",
        "encoded": "Jobs that wait for DiT workers.",
        "denoising": "Jobs that are being denoised.",
        "denoised": "Jobs that wait for a VAE worker.",
        "decoding": "Jobs that are being decoded.",
        "succeeded": "Jobs whose video is complete.",
        "failed": "Jobs that have failed for good.",
        "cancelled": "Jobs that were cancelled.",
        "unfinished": "Jobs that are not in a final state; 0 when the batch is done.",
        "steps_done": "Denoising steps done, of jobs that have neither failed nor been cancelled.",
        "steps_total": "Denoising steps of those jobs in all.",
        "percent": "The one in percent of the other; null when no such job is left.",
        "eta_s": "Seconds until its last job in order has been denoised, estimated as in "
        "job_status; null when there is nothing to go by, and after denoising.",
        "created_at": "When it was submitted.",
        "first_finished_at": "When the first of its jobs came into a final state.",
        "last_finished_at": "When the last one so far did.",
        "cancel_requested_at": "When the cancel of the whole batch was requested.",
        "out_url": "Where finished videos appear under the users' names.",
    },
    "worker_status": {
        "": "One row a worker name: its newest life.",
        "name": "A slot for a worker process, stable over restarts: dit-0@host.",
        "phase": "The phase that it serves: encode, dit or vae.",
        "host": "Its host.",
        "node": "Its node; groups stay inside one.",
        "device": "Its device, such as cuda:0.",
        "models": "Models that it serves.",
        "version": "Its release of ddit-batch.",
        "state": "online, draining (takes no new work), stopped (in order) or lost.",
        "incarnation": "Number of this life; rises with every start.",
        "lease_left_s": "Seconds until its lease runs out unless renewed; negative: it ran out. "
        "Null when it has ended.",
        "job_id": "The job that it works on; null when idle.",
        "jobs_done": "Attempts that workers of this name have finished, in all lives; a DiT "
        "attempt counts for the leader of its group.",
        "registered_at": "When this life began.",
        "last_seen": "Until when it is known to have lived; now, while its lease holds.",
    },
    "phase_latency": {
        "": "How long attempts that finished took, by phase, model and shape, from claim to end.",
        "phase": "encode, dit or vae.",
        "model": "Name of the model.",
        "shape": "Width x height x frames.",
        "attempts": "Attempts that finished.",
        "mean_s": "Mean seconds.",
        "p50_s": "Median seconds.",
        "p95_s": "Seconds that 95 % of them stayed under.",
        "max_s": "Seconds of the longest.",
    },
    "gpu_seconds": {
        "": "Who worked on what, when: one row for each segment of a DiT phase, and for each "
        "claimed attempt at another phase. On CPU workers they are worker-seconds.",
        "batch_id": "The batch.",
        "job_id": "The job.",
        "custom_id": "The user's name for the line.",
        "model": "Name of the model.",
        "shape": "Width x height x frames.",
        "phase": "encode, dit or vae.",
        "attempt": "Number of the attempt at this phase of the job.",
        "segment": "For dit, the number of the segment: consecutive steps on one group of workers.",
        "reason": "For dit, why the segment began: start, resume, checkpoint_lost.",
        "workers": "Names of the workers, the leader first.",
        "dop": "How many they are.",
        "from_step": "For dit, the steps that were done when it began.",
        "to_step": "For dit, the steps that were done when it ended, or are now.",
        "started_at": "When it began.",
        "ended_at": "When it ended; null while it runs.",
        "seconds": "Seconds from beginning to end, or to now.",
        "gpu_seconds": "Seconds times dop.",
    },
}

# Users' queries run inside of this function, which belongs to the reader role: a role that was
# merely set can be reset by the query itself, and a query inside of such a function cannot.
READER = """
CREATE FUNCTION ddit_grant_reader() RETURNS text LANGUAGE plpgsql AS $grant$
DECLARE
    problem text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ddit_reader') THEN
        BEGIN
            CREATE ROLE ddit_reader NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- made at the same time for another database of this server
        END;
    END IF;
    IF NOT pg_has_role('ddit_reader', CASE
            WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET'
            ELSE 'MEMBER' END) THEN
        EXECUTE format('GRANT ddit_reader TO %I', current_user);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO ddit_reader', current_schema());
    GRANT SELECT ON worker_capacity, model_pace, job_status, waiting_jobs, batch_progress,
        worker_status, phase_latency, gpu_seconds TO ddit_reader;
    IF to_regprocedure('ddit_read(text, integer)') IS NULL THEN
        CREATE FUNCTION ddit_read(query text, row_limit integer) RETURNS SETOF record
        LANGUAGE plpgsql SECURITY DEFINER AS $read$
        DECLARE
            found record;
        BEGIN
            FOR found IN EXECUTE query LOOP
                EXIT WHEN row_limit <= 0;
                row_limit := row_limit - 1;
                RETURN NEXT found;
            END LOOP;
        END
        $read$;
        COMMENT ON FUNCTION ddit_read IS
            'Runs a query as ddit_reader, which it cannot leave; gives at most row_limit rows.';
        REVOKE ALL ON FUNCTION ddit_read FROM PUBLIC;
        EXECUTE format('GRANT CREATE ON SCHEMA %I TO ddit_reader', current_schema());
        ALTER FUNCTION ddit_read OWNER TO ddit_reader;
        EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM ddit_reader', current_schema());
    END IF;
    RETURN 'the role ddit_reader can read the views';
EXCEPTION WHEN insufficient_privilege THEN
    GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
    RAISE NOTICE 'no role that can read the views and nothing else (%): have an administrator run '
        'CREATE ROLE ddit_reader; GRANT ddit_reader TO %; then run SELECT ddit_grant_reader()',
        problem, quote_ident(current_user);
    RETURN problem;
END
$grant$;
COMMENT ON FUNCTION ddit_grant_reader IS
    'Makes the role ddit_reader, if that is allowed, and lets it read the views; safe to repeat.';
REVOKE ALL ON FUNCTION ddit_grant_reader FROM PUBLIC;
SELECT ddit_grant_reader()
"""


def upgrade() -> None:
    for statements in (COLUMNS, INDEXES, *VIEWS):
        op.execute(statements)
    for view, comments in COMMENTS.items():
        for column, comment in comments.items():
            what = f"COLUMN {view}.{column}" if column else f"VIEW {view}"
            quoted = comment.replace("'", "''")
            op.execute(f"COMMENT ON {what} IS '{quoted}'")
    op.execute(READER)
