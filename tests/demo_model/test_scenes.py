from collections import Counter

import numpy as np

from ddit_batch.model_config import known_models
from ddit_batch.prompt_file import parse
from demo_model.captions import plain, reworded
from demo_model.examples import FILE, examples, file_text
from demo_model.scenes import Change, Size, every_combination, is_held_out, sample

TRAINED = {(64, 9), (64, 17), (128, 9), (128, 17), (256, 17)}


def test_what_is_held_out_is_balanced() -> None:
    """Each word as often as its like; so who does not heed a word scores chance."""
    held_out = [scene for scene in every_combination() if is_held_out(scene)]

    assert len(held_out) == len(every_combination()) // 6
    for name in ("color", "background", "form", "size"):
        counts = Counter(getattr(scene, name) for scene in held_out)
        assert max(counts.values()) - min(counts.values()) <= 2, counts


def test_every_pair_of_words_is_trained_on() -> None:
    seen = [scene for scene in every_combination() if not is_held_out(scene)]
    names = ("color", "background", "form", "size")
    for one in names:
        for other in names:
            pairs = {(getattr(s, one), getattr(s, other)) for s in every_combination()}
            assert {(getattr(s, one), getattr(s, other)) for s in seen} == pairs


def test_sampled_scenes_keep_to_their_side() -> None:
    dice = np.random.default_rng(0)
    for held_out in (True, False):
        scenes = [sample(dice, held_out=held_out) for _ in range(200)]
        assert all(is_held_out(scene) is held_out for scene in scenes)
        assert {scene.change for scene in scenes} == set(Change)
        assert all((s.into is not None) == (s.change is Change.TURNS) for s in scenes)


def test_captions_name_colours_and_differ_by_scene() -> None:
    dice = np.random.default_rng(1)
    for _ in range(200):
        scene = sample(dice, held_out=False)
        for said in (plain(scene), reworded(scene, dice)):
            assert scene.color in said.lower()
            assert scene.into is None or scene.into in said.lower()
            assert said == " ".join(said.split())
    every = [scene for scene in every_combination() if scene.size is Size.SMALL]
    assert len({plain(scene) for scene in every}) == len(every)


def test_example_file_is_as_the_code_has_it_and_right_for_the_demo_model() -> None:
    assert FILE.read_text("utf-8") == file_text()
    parsed = parse(
        FILE.read_bytes(), file_name=FILE.name, models=known_models(), default_model="shapes"
    )

    assert parsed.problems == ()
    assert [r.custom_id for r in parsed.requests] == [e.custom_id for e in examples()]
    assert len(parsed.requests) == 31
    assert {(r.height, r.num_frames) for r in parsed.requests} == TRAINED
