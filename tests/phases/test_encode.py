"""The key under which embeddings are cached."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_model import MakeRequest

from ddit_batch.model_config import Dtype, Dtypes, ModelConfig
from ddit_batch.phases.encode import embeddings_digest


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"height": 128, "width": 128},
        {"num_inference_steps": 50},
        {"guidance_scale": 7.5},
        {"custom_id": "another", "line": 9},
    ],
    ids=str,
)
def test_what_the_text_encoder_does_not_see_shares_the_key(
    config: ModelConfig, make_request: MakeRequest, change: dict[str, Any]
) -> None:
    """The same texts are encoded once, whatever is made of them."""
    assert embeddings_digest(config, make_request(**change)) == embeddings_digest(
        config, make_request()
    )


@pytest.mark.parametrize(
    "change", [{"prompt": "waves"}, {"negative_prompt": ""}, {"guidance_scale": 1.0}], ids=str
)
def test_other_texts_have_other_keys(
    config: ModelConfig, make_request: MakeRequest, change: dict[str, Any]
) -> None:
    """Prompt, negative prompt and the presence of guidance count."""
    assert embeddings_digest(config, make_request(**change)) != embeddings_digest(
        config, make_request()
    )


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"source": "/models/other"},
        {"revision": "abc"},
        {"max_sequence_length": 32},
        {"dtypes": Dtypes(text_encoder=Dtype.BFLOAT16)},
    ],
    ids=str,
)
def test_other_models_have_other_keys(
    config: ModelConfig, make_request: MakeRequest, change: dict[str, Any]
) -> None:
    """So does whatever changes the text encoder or its output."""
    other = config.model_copy(update=change)

    assert embeddings_digest(other, make_request()) != embeddings_digest(config, make_request())


def test_without_guidance_the_negative_prompt_has_no_say(
    config: ModelConfig, make_request: MakeRequest
) -> None:
    """It is not encoded, so it cannot make a difference."""
    keys = {
        embeddings_digest(config, make_request(guidance_scale=1.0, negative_prompt=text))
        for text in ("", "blurry")
    }

    assert len(keys) == 1
