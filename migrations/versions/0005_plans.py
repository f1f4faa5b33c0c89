"""Plans: the groups that running jobs are to have, from the decision until a step boundary."""

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


def upgrade() -> None:
    op.execute(PLANS)
