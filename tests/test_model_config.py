import json
from pathlib import Path

import pytest

from ddit_batch.errors import ConfigError
from ddit_batch.model_config import (
    Dtype,
    Family,
    ModelConfig,
    find_model,
    from_folder,
    known_models,
    load_model_config,
)
from ddit_batch.prompt_file import parse

MINIMAL = "name: mine\nfamily: wan\nsource: some/where\nheads: 12\n"


def pipeline_folder(
    folder: Path, index: object = None, transformer: object = None, name: str = "my-wan"
) -> Path:
    pipeline = folder / name
    (pipeline / "transformer").mkdir(parents=True)
    index = {"_class_name": "WanPipeline"} if index is None else index
    transformer = {"num_attention_heads": 12} if transformer is None else transformer
    (pipeline / "model_index.json").write_text(json.dumps(index))
    (pipeline / "transformer" / "config.json").write_text(json.dumps(transformer))
    return pipeline


def test_the_shipped_models_are_known_by_name() -> None:
    """An installation knows its shipped models without any setting."""
    assert {"tiny-wan", "wan2.1-t2v-1.3b", "wan2.1-t2v-14b"} <= set(known_models())


@pytest.mark.parametrize("name", sorted(known_models()))
def test_the_defaults_of_a_shipped_model_keep_its_own_limits(name: str) -> None:
    """A line that says nothing but its prompt is right for every shipped model."""
    parsed = parse(b'{"prompt": "a cat"}', file_name="f", models=known_models(), default_model=name)

    assert not parsed.problems
    assert parsed.requests[0].model == name


def test_a_minimal_file_gets_the_defaults(tmp_path: Path) -> None:
    """Name, family, source and heads are enough."""
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)

    config = load_model_config(path)

    assert (config.name, config.family, config.heads) == ("mine", Family.WAN, 12)
    assert config.defaults.num_inference_steps == 50
    assert config.dtypes.vae is Dtype.FLOAT32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL + "defalts: {}\n", "defalts: Extra inputs are not permitted"),
        (MINIMAL + "limits: {max_size: big}\n", "limits.max_size: Input should be a valid integer"),
        (MINIMAL.replace("wan\n", "sora\n"), "family: Input should be 'wan'"),
        (MINIMAL.replace("mine", "../mine"), "name: String should match pattern"),
        (MINIMAL.replace("12", "0"), "heads: Input should be greater than or equal to 1"),
        ("a: [1, 2", "is not YAML"),
        ("", "file: Input should be a valid dictionary"),
    ],
)
def test_a_wrong_file_is_refused_with_its_field(tmp_path: Path, text: str, expected: str) -> None:
    """A wrong config names the file, the field and what is wrong."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        load_model_config(path)

    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file and one that is not UTF-8 are config errors, too."""
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: caf\xe9\n")

    with pytest.raises(ConfigError, match="No such file"):
        load_model_config(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match=r"not UTF-8 \(byte 9\)"):
        load_model_config(latin)


def test_a_pipeline_folder_works_without_a_config(tmp_path: Path) -> None:
    """A folder in diffusers' format is a model: its name and heads come from the folder."""
    folder = pipeline_folder(tmp_path)

    config = from_folder(folder)

    assert config == ModelConfig(
        name="my-wan", family=Family.WAN, source=str(folder.resolve()), heads=12
    )


def test_a_wan_21_folder_written_by_newer_diffusers_is_accepted(tmp_path: Path) -> None:
    """The empty second transformer that newer releases write into the index does no harm."""
    index = {
        "_class_name": "WanPipeline",
        "transformer_2": [None, None],
        "boundary_ratio": None,
        "expand_timesteps": False,
    }

    assert from_folder(pipeline_folder(tmp_path, index)).heads == 12


@pytest.mark.parametrize(
    ("index", "transformer", "expected"),
    [
        ({"_class_name": "FluxPipeline"}, None, "holds a FluxPipeline; supported: WanPipeline"),
        ([1], None, "holds a None"),
        (
            {"_class_name": "WanPipeline", "transformer_2": ["diffusers", "WanTransformer3DModel"]},
            None,
            "Wan 2.2",
        ),
        ({"_class_name": "WanPipeline", "expand_timesteps": True}, None, "Wan 2.2"),
        (None, {}, "heads: Input should be a valid integer"),
        (None, [1], "heads: Input should be a valid integer"),
    ],
)
def test_a_folder_that_no_adapter_speaks_for_is_refused(
    tmp_path: Path, index: object, transformer: object, expected: str
) -> None:
    """A pipeline of another kind is refused before a worker loads it."""
    folder = pipeline_folder(tmp_path, index, transformer)

    with pytest.raises(ConfigError, match=expected):
        from_folder(folder)


def test_a_folder_whose_name_is_no_model_name_is_refused_with_a_cure(tmp_path: Path) -> None:
    """A model's name goes into SQL and command lines, so a folder's name must fit."""
    folder = pipeline_folder(tmp_path, name="my wan")

    with pytest.raises(ConfigError, match=r"name: .* \(found 'my wan'\): rename the folder"):
        from_folder(folder)


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    """An empty folder is no model."""
    with pytest.raises(ConfigError, match="is not a pipeline in diffusers' format"):
        from_folder(tmp_path)


def test_the_users_own_config_wins_over_a_shipped_one(tmp_path: Path) -> None:
    """A user may redefine a shipped name."""
    (tmp_path / "any.yaml").write_text(MINIMAL.replace("mine", "tiny-wan"))

    assert known_models(tmp_path)["tiny-wan"].source == "some/where"


def test_a_model_is_found_by_name_file_and_folder(tmp_path: Path) -> None:
    """Wherever a model is asked for, all three ways work."""
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    models = known_models()

    assert find_model("tiny-wan", models) is models["tiny-wan"]
    assert find_model(str(path), models).name == "mine"
    assert find_model(str(pipeline_folder(tmp_path)), models).name == "my-wan"


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    """The message lists what could have been meant."""
    with pytest.raises(
        ConfigError, match=r"'sora' is unknown: name one of shapes, tiny-wan, wan2\.1"
    ):
        find_model("sora", known_models())
