"""``python -m demo_model.training FOLDER [STAGE ...]``: train, going on where it stopped."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

STAGES = ("pictures", "films", "text", "latents", "denoiser", "export")


def main() -> None:
    """Run the stages in order; a stage that is done does nothing."""
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("run", type=Path, metavar="FOLDER", help="for checkpoints and results")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(STAGES))
    given = parser.parse_args()
    given.run.mkdir(parents=True, exist_ok=True)
    for stage in given.stages or STAGES:
        if stage not in STAGES:
            parser.error(f"no stage {stage!r}: there are {', '.join(STAGES)}")
        importlib.import_module(f"demo_model.training.{stage}").train(given.run)


if __name__ == "__main__":
    main()
