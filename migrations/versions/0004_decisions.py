"""The bounded log of decisions, and a view of what is in it."""

import runpy
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

VIEW = """
CREATE VIEW decision_log AS
SELECT id, at, term, policy, workers, jobs, commands
FROM decisions
"""

COMMENTS = {
    "": "One row for each decision of the scheduler that is on record: those that did something, a "
    "few a second at most, and others now and then; for a day at most. `ddit explain` reads them.",
    "id": "Order of the decisions.",
    "at": "When the decision was made.",
    "term": "Of the scheduler that made it; rises with every take-over.",
    "policy": "The policy, with its options.",
    "workers": "Live workers that the decision saw.",
    "jobs": "Jobs that it saw: all that were under way, and the first of those that waited.",
    "commands": "What it did, in single commands: jobs sent, groups changed, workers lost.",
}

READER_CHANGES = (
    ("CREATE FUNCTION ddit_grant_reader", "CREATE OR REPLACE FUNCTION ddit_grant_reader"),
    ("gpu_seconds TO ddit_reader", "gpu_seconds, decision_log TO ddit_reader"),
)


def upgrade() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("jobs", sa.Integer, nullable=False),
        sa.Column("workers", sa.Integer, nullable=False),
        sa.Column("commands", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    op.create_index("decisions_at", "decisions", ["at"])
    op.execute(VIEW)
    for column, comment in COMMENTS.items():
        what = f"COLUMN decision_log.{column}" if column else "VIEW decision_log"
        op.execute(f"COMMENT ON {what} IS '{comment}'")
    # The list of the views that the role may read stands in a function of 0002.
    reader = runpy.run_path(str(Path(__file__).with_name("0002_views.py")))["READER"]
    for old, new in READER_CHANGES:
        assert reader.count(old) == 1
        reader = reader.replace(old, new)
    op.execute(reader)
