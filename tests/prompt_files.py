"""Small models and short ways to parse, for the tests of prompt files."""

import json

from ddit_batch.model_config import Defaults, Family, Limits, ModelConfig
from ddit_batch.prompt_file import ParsedFile, parse

SMALL = ModelConfig(
    name="small",
    family=Family.WAN,
    source="builtin:tiny-wan",
    heads=4,
    defaults=Defaults(height=64, width=96, num_frames=9, num_inference_steps=8, fps=8),
    limits=Limits(max_size=736, max_frames=81, max_steps=100, max_prompt_chars=50),
)
LARGE = SMALL.model_copy(
    update={
        "name": "large",
        "limits": Limits(size_multiple=32, max_size=1280),
        "defaults": Defaults(height=480, width=832),
    }
)
MODELS = {"small": SMALL, "large": LARGE}


def parsed(data: bytes | str, **overrides: str) -> ParsedFile:
    """What *data* gives when lines are for the small model."""
    data = data.encode() if isinstance(data, str) else data
    return parse(
        data, file_name="p.jsonl", models=MODELS, default_model="small", overrides=overrides
    )


def problems(data: bytes | str, **overrides: str) -> list[str]:
    """The messages about *data*."""
    return [str(problem) for problem in parsed(data, **overrides).problems]


def line(**fields: object) -> str:
    """A right line with *fields* besides."""
    return json.dumps({"prompt": "a cat", **fields})
