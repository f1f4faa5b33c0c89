"""``python -m ddit_batch.cli`` is ``ddit``."""

from ddit_batch.cli import main

main(prog_name="ddit")
