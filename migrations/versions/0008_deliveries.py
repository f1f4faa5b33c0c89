"""When the user's files of a job were made, so that another worker can make those that are missing.

A VAE worker makes them after its commit. One that dies in between leaves a success without files.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

COLUMN = """
ALTER TABLE jobs ADD COLUMN delivered_at timestamptz;
UPDATE jobs SET delivered_at = finished_at WHERE state = 'succeeded';
CREATE INDEX jobs_to_deliver ON jobs (finished_at)
    WHERE state = 'succeeded' AND delivered_at IS NULL
"""


def upgrade() -> None:
    op.execute(COLUMN)
