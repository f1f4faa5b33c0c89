"""Batches, jobs and their history; workers; who leads.

What each constraint is for stands beside its table in the model file of this release.
"""

from alembic import op

revision = "0001"
down_revision = None

BATCHES = """
CREATE TABLE batches (
    id                  text PRIMARY KEY,
    content_hash        text NOT NULL,
    repeat              integer NOT NULL DEFAULT 0,
    name                text NOT NULL,
    out_url             text,
    total               integer NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    cancel_requested_at timestamptz,
    CONSTRAINT batches_content_once UNIQUE (content_hash, repeat)
)
"""

WORKERS = """
CREATE TABLE workers (
    incarnation      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name             text NOT NULL,
    phase            text NOT NULL,
    host             text NOT NULL,
    node             text NOT NULL,
    device           text NOT NULL,
    pid              integer NOT NULL,
    models           text[] NOT NULL,
    version          text NOT NULL,
    state            text NOT NULL,
    registered_at    timestamptz NOT NULL DEFAULT now(),
    lease_expires_at timestamptz NOT NULL,
    ended_at         timestamptz,
    CONSTRAINT workers_phase CHECK (phase IN ('encode', 'dit', 'vae')),
    CONSTRAINT workers_state CHECK (state IN ('online', 'draining', 'stopped', 'lost')),
    CONSTRAINT workers_end CHECK ((state IN ('online', 'draining')) = (ended_at IS NULL))
);
CREATE UNIQUE INDEX workers_live_name ON workers (name) WHERE state IN ('online', 'draining')
"""

JOBS = """
CREATE TABLE jobs (
    id                  text PRIMARY KEY,
    seq                 bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    batch_id            text NOT NULL REFERENCES batches (id),
    line                integer NOT NULL,
    custom_id           text NOT NULL,
    model               text NOT NULL,
    priority            integer NOT NULL,
    height              integer NOT NULL,
    width               integer NOT NULL,
    num_frames          integer NOT NULL,
    steps               integer NOT NULL,
    request             jsonb NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    state               text NOT NULL DEFAULT 'queued',
    state_since         timestamptz NOT NULL DEFAULT now(),
    attempt             integer NOT NULL DEFAULT 0,
    queue               text,
    dispatched_at       timestamptz,
    holder              bigint REFERENCES workers (incarnation),
    step                integer NOT NULL DEFAULT 0,
    step_s              double precision,
    dop                 integer NOT NULL DEFAULT 0,
    embeddings_key      text,
    checkpoint_key      text,
    checkpoint_step     integer,
    latents_key         text,
    artifact_key        text,
    manifest_key        text,
    failures            integer NOT NULL DEFAULT 0,
    worker_losses       integer NOT NULL DEFAULT 0,
    failure_code        text,
    failure_message     text,
    cancel_requested_at timestamptz,
    finished_at         timestamptz,
    CONSTRAINT jobs_custom_id UNIQUE (batch_id, custom_id),
    CONSTRAINT jobs_line UNIQUE (batch_id, line),
    CONSTRAINT jobs_state CHECK (state IN ('queued', 'encoding', 'encoded', 'denoising',
        'denoised', 'decoding', 'succeeded', 'failed', 'cancelled')),
    CONSTRAINT jobs_held_while_worked_on CHECK (
        (state IN ('decoding', 'denoising', 'encoding')) = (holder IS NOT NULL)),
    CONSTRAINT jobs_held_dispatched CHECK (
        NOT state IN ('decoding', 'denoising', 'encoding') OR dispatched_at IS NOT NULL),
    CONSTRAINT jobs_embeddings CHECK (
        NOT state IN ('encoded', 'denoising') OR embeddings_key IS NOT NULL),
    CONSTRAINT jobs_latents CHECK (
        NOT state IN ('denoised', 'decoding') OR latents_key IS NOT NULL),
    CONSTRAINT jobs_artifact CHECK (state <> 'succeeded' OR artifact_key IS NOT NULL),
    CONSTRAINT jobs_cause CHECK (state <> 'failed' OR failure_code IS NOT NULL),
    CONSTRAINT jobs_step CHECK (step BETWEEN 0 AND steps),
    CONSTRAINT jobs_ckpt CHECK (checkpoint_step IS NULL OR checkpoint_key IS NOT NULL)
);
CREATE INDEX jobs_waiting ON jobs (state, model, priority DESC, seq)
    WHERE state IN ('queued', 'encoded', 'denoised') AND dispatched_at IS NULL;
CREATE INDEX jobs_dispatched ON jobs (id) WHERE dispatched_at IS NOT NULL;
CREATE INDEX jobs_to_cancel ON jobs (id)
    WHERE cancel_requested_at IS NOT NULL AND finished_at IS NULL;
CREATE INDEX jobs_batch_state ON jobs (batch_id, state)
"""

JOB_EVENTS = """
CREATE TABLE job_events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id      text NOT NULL REFERENCES jobs (id),
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    trigger     text NOT NULL,
    from_state  text NOT NULL,
    to_state    text NOT NULL,
    attempt     integer NOT NULL,
    incarnation bigint,
    detail      jsonb NOT NULL DEFAULT '{}'::jsonb
);
CREATE INDEX job_events_job ON job_events (job_id, id)
"""

ATTEMPTS = """
CREATE TABLE attempts (
    job_id        text NOT NULL REFERENCES jobs (id),
    phase         text NOT NULL,
    number        integer NOT NULL,
    queue         text NOT NULL,
    dispatched_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    incarnation   bigint REFERENCES workers (incarnation),
    claimed_at    timestamptz,
    ended_at      timestamptz,
    outcome       text,
    PRIMARY KEY (job_id, phase, number),
    CONSTRAINT attempts_phase CHECK (phase IN ('encode', 'dit', 'vae')),
    CONSTRAINT attempts_outcome CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
CREATE UNIQUE INDEX attempts_live ON attempts (job_id) WHERE ended_at IS NULL
"""

SEGMENTS = """
CREATE TABLE segments (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id     text NOT NULL REFERENCES jobs (id),
    attempt    integer NOT NULL,
    plan_epoch integer NOT NULL,
    dop        integer NOT NULL,
    workers    text[] NOT NULL,
    from_step  integer NOT NULL,
    to_step    integer,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz,
    reason     text NOT NULL,
    CONSTRAINT segments_dop CHECK (dop = cardinality(workers)),
    CONSTRAINT segments_steps CHECK (to_step IS NULL OR to_step >= from_step),
    CONSTRAINT segments_end CHECK ((ended_at IS NULL) = (to_step IS NULL))
);
CREATE UNIQUE INDEX segments_open ON segments (job_id) WHERE ended_at IS NULL;
CREATE INDEX segments_job ON segments (job_id, id)
"""

LEADERSHIP = """
CREATE TABLE leadership (
    id     integer PRIMARY KEY,
    term   bigint NOT NULL,
    holder text NOT NULL,
    since  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT leadership_one_row CHECK (id = 1)
);
INSERT INTO leadership (id, term, holder) VALUES (1, 0, 'nobody')
"""


def upgrade() -> None:
    for statements in (BATCHES, WORKERS, JOBS, JOB_EVENTS, ATTEMPTS, SEGMENTS, LEADERSHIP):
        op.execute(statements)
