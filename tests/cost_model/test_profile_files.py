from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ddit_batch.cli import main
from ddit_batch.config import load_settings
from ddit_batch.cost_model import Basis
from ddit_batch.errors import ConfigError
from ddit_batch.job import Shape
from ddit_batch.model_config import known_models
from ddit_batch.profile import (
    Profile,
    cost_model_of,
    find_profile,
    known_profiles,
    load_profile,
    make_cost_model,
    parse_shape,
    profile_yaml,
)

SHIPPED = known_profiles()
PROVENANCE = "provenance: {device: d, software: s, date: now, samples: 1, sources: [here]}\n"
MINIMAL = (
    "name: mine\nmodels: [wan]\n"
    + PROVENANCE
    + "table: [{shape: 64x32x9, step_s: {1: 2.0, 2: 1.0}}]\n"
    + "encode: {seconds: 0.5}\n"
    + "decode: {rows: [{shape: 64x32x9, seconds: 3}]}\n"
)


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_the_profiles_of_the_published_tables_are_shipped() -> None:
    """By name, without any setting."""
    assert {
        "cogvideox1.5-5b-l20",
        "ddit-opensora-h800",
        "hunyuanvideo-l20",
        "tiny-wan-cpu",
        "wan2.1-14b-h800",
    } <= set(SHIPPED)


@pytest.mark.parametrize("profile", SHIPPED.values(), ids=list(SHIPPED))
def test_a_shipped_profile_says_where_it_comes_from(profile: Profile) -> None:
    """Device, software, date, a public source or how it was measured, and doubts."""
    said = profile.provenance

    assert said.device
    assert said.software
    assert re.search(r"20\d\d-\d\d", said.date)
    assert said.doubts
    assert all(re.match(r"https://|ddit profile: ", source) for source in said.sources)


@pytest.mark.parametrize("profile", SHIPPED.values(), ids=list(SHIPPED))
def test_a_shipped_profile_gives_the_costs_of_its_own_table(profile: Profile) -> None:
    """Every number in it is found again, at every dop that its heads allow."""
    model = make_cost_model([profile])

    for row in profile.table:
        cost = model.cost(profile.models[0], row.shape)
        for dop, seconds in row.step_s.items():
            if profile.heads and profile.heads % dop == 0:
                assert cost.at(dop) == seconds
            else:
                assert dop not in cost.dops
        assert cost.decode_s > 0
        if profile.decode.assumed:
            assert cost.decode_basis is Basis.ASSUMED


@pytest.mark.parametrize("model", sorted(known_models()))
def test_every_shipped_model_has_a_shipped_profile(model: str) -> None:
    """So that the first job of a model has an estimate, with the heads of its config."""
    cost_model = cost_model_of(load_settings())

    assert cost_model.profile_of(model) is not cost_model.unknown
    assert cost_model.profile_of(model).heads == known_models()[model].heads


def test_a_number_that_is_taken_for_a_typo_is_interpolated() -> None:
    """CogVideoX 1.5 of 33 frames on 2 GPUs: published as 0.75 s, what 4 GPUs take."""
    profile = SHIPPED["cogvideox1.5-5b-l20"]
    shape = Shape(768, 432, 33)
    (row,) = (row for row in profile.table if row.shape == shape)

    cost = make_cost_model([profile]).cost("cogvideox1.5-5b", shape)

    assert row.note
    assert row.suspect == {2: row.step_s[4]}
    assert cost.at(4) * 1.6 < cost.at(2) < cost.at(1) / 1.5
    assert cost.bases[cost.dops.index(2)] is Basis.INTERPOLATED
    assert cost.basis is Basis.INTERPOLATED


def test_the_video_shapes_of_a_profile_leave_out_its_pictures() -> None:
    """Eight each of the published tables, for a workload to draw from."""
    for name in ("cogvideox1.5-5b-l20", "hunyuanvideo-l20"):
        profile = SHIPPED[name].for_model()

        assert len(profile.video_shapes) == 8
        assert len(profile.shapes) == 10


def test_a_profile_written_is_read_back_the_same(tmp_path: Path) -> None:
    """Every shipped one goes through a file and loses nothing."""
    for profile in SHIPPED.values():
        assert load_profile(written(tmp_path, profile_yaml(profile))) == profile


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: mine", "nmae: mine", "name: Field required"),
        ("name: mine", "name: ../mine", "name: String should match pattern"),
        ("models: [wan]", "models: []", "models: "),
        ("samples: 1, ", "", "provenance.samples: Field required"),
        ("sources: [here]", "sources: []", "provenance.sources: "),
        ("64x32x9, step", "64*32*9, step", "table.0.shape: '64*32*9' is no shape: write WIDTH"),
        ("{1: 2.0, 2: 1.0}", "{1: 0}", "table.0.step_s.1: Input should be greater than 0"),
        ("{1: 2.0, 2: 1.0}", "{1: .nan}", "table.0.step_s.1: "),
        ("{1: 2.0, 2: 1.0}", "{0: 1.0}", "table.0.step_s.0"),
        ("{1: 2.0, 2: 1.0}", "{2: 1.0}", "no row of table has dop 1: measure one shape"),
        ("2: 1.0}", "2: 1.0}, suspect: {2: 1.0}", "dop 2 is in step_s and in suspect: take it out"),
        ("2: 1.0}", "2: 1.0}, suspect: {4: 1.0}", "note is missing: say why"),
        ("2: 1.0}}", "2: 1.0}}, {shape: 64x32x9, step_s: {1: 2}}", "table has 64x32x9 twice: keep"),
        ("rows: [{shape: 64x32x9, seconds: 3}]", "", "decode: give either rows (measured) or"),
        ("seconds: 3}]", "seconds: 3}, {shape: 64x32x9, seconds: 4}]", "decode.rows has 64x32x9"),
        ("encode:", "scaling: {doubling_efficiency: 2, max_dop: 4, why: x}\nencode:", "scaling."),
        ("encode:", "lone_exponent: 3\nencode:", "lone_exponent: Input should be less than"),
        ("name: mine", "name: [", "is not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_file_field_rule_and_cure(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    """A wrong profile names itself and what is to be changed where."""
    assert old in MINIMAL
    path = written(tmp_path, MINIMAL.replace(old, new))

    with pytest.raises(ConfigError) as caught:
        load_profile(path)

    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_a_minimal_file_is_enough(tmp_path: Path) -> None:
    """What was measured and where it comes from; the rest has defaults."""
    profile = load_profile(written(tmp_path, MINIMAL))

    cost = make_cost_model([profile]).cost("wan", Shape(32, 64, 9))
    assert (cost.dops, cost.step_s) == ((1, 2), (2.0, 1.0))
    assert (cost.encode_s, cost.decode_s) == (0.5, 3.0)
    assert {cost.basis, cost.encode_basis, cost.decode_basis} == {Basis.MEASURED}


def test_the_example_in_the_docs_is_a_profile(tmp_path: Path) -> None:
    """It can be copied and filled in."""
    page = (Path(__file__).parents[2] / "docs" / "cost-model.md").read_text("utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)

    profile = load_profile(written(tmp_path, example))

    assert make_cost_model([profile]).cost("my-wan", Shape(480, 832, 81)).dops == (1, 2)


def test_rows_that_were_not_measured_say_so(tmp_path: Path) -> None:
    """A row that is derived by scaling keeps its basis."""
    text = MINIMAL.replace("2: 1.0}", "2: 1.0}, basis: extrapolated, note: by tokens")

    profile = load_profile(written(tmp_path, text))

    assert make_cost_model([profile]).cost("wan", Shape(32, 64, 9)).basis is Basis.EXTRAPOLATED


def test_a_profile_is_found_by_name_and_by_file(tmp_path: Path) -> None:
    """Wherever a profile is asked for, both work; a wrong name is answered with the right ones."""
    path = written(tmp_path, MINIMAL)

    assert find_profile("tiny-wan-cpu") == SHIPPED["tiny-wan-cpu"]
    assert find_profile(str(path)).name == "mine"
    with pytest.raises(ConfigError, match=r"'tiny' is unknown: .* cogvideox.* tiny-wan-cpu"):
        find_profile("tiny")
    with pytest.raises(ConfigError, match="No such file"):
        find_profile(str(tmp_path / "other.yaml"))


def test_the_named_profiles_win_over_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings name them; what they do not speak for keeps its shipped profile."""
    path = written(tmp_path, MINIMAL.replace("[wan]", "[tiny-wan]"))
    monkeypatch.setenv("DDIT_PROFILES", f"{path},hunyuanvideo-l20")
    monkeypatch.setenv("DDIT_PROFILE_FIXED", "true")

    model = cost_model_of(load_settings())

    assert [profile.name for profile in model.profiles[:2]] == ["mine", "hunyuanvideo-l20"]
    assert model.cost("tiny-wan", Shape(32, 64, 9)).at(1) == 2.0
    assert model.profile_of("wan2.1-t2v-14b").name == "wan2.1-14b-h800"
    assert model.is_fixed


def test_a_scheduler_does_not_start_with_a_profile_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong setting is refused at once, with the names that would be right."""
    monkeypatch.setenv("DDIT_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("DDIT_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("DDIT_PROFILES", "my-gpu")

    done = CliRunner().invoke(main, ["scheduler"])

    assert done.exit_code == 1
    assert "profile 'my-gpu' is unknown: name one of " in done.stderr


def test_legal_dops_divide_the_heads_of_the_model_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what the workers load; a profile may have been measured with another size of it."""
    path = written(tmp_path, MINIMAL.replace("models:", "heads: 4\nmodels:"))
    monkeypatch.setenv("DDIT_PROFILES", str(path))
    before = cost_model_of(load_settings()).cost("wan", Shape(32, 64, 9)).dops
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "mine.yaml").write_text("name: wan\nfamily: wan\nsource: x\nheads: 9\n")
    monkeypatch.setenv("DDIT_MODELS_FOLDER", str(folder))

    after = cost_model_of(load_settings()).cost("wan", Shape(32, 64, 9)).dops

    assert (before, after) == ((1, 2), (1,))


@pytest.mark.parametrize("text", ["64x32", "0x32x9", "64X32X9", "64x32x9 ", "-1x32x9", "64x32x1e3"])
def test_a_shape_is_written_in_one_way(text: str) -> None:
    """As it is shown: width, height, frames."""
    with pytest.raises(ValueError, match="write WIDTHxHEIGHTxFRAMES"):
        parse_shape(text)
    assert str(parse_shape("1280x720x81")) == "1280x720x81"
