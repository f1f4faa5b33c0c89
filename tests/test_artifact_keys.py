from collections.abc import Callable

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ddit_batch.artifact_keys import (
    artifact_key,
    check_key,
    checkpoint_key,
    embeddings_key,
    file_name_for,
    is_key,
    is_made_here,
    latents_key,
    manifest_key,
)
from ddit_batch.errors import ArtifactError
from ddit_batch.job import JobId

JOB = JobId("b0123456789-000017")
IDS = st.text(min_size=0, max_size=300) | st.text("aA.%~/2E\\\ud800 ", max_size=6)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (checkpoint_key(JOB, 2, 15), "jobs/b0123456789-000017/dit.a2/step-000015.pt"),
        (latents_key(JOB, 2), "jobs/b0123456789-000017/dit.a2/latents.safetensors"),
        (artifact_key(JOB, 1), "jobs/b0123456789-000017/vae.a1/video.mp4"),
        (manifest_key(JOB, 1), "jobs/b0123456789-000017/vae.a1/manifest.json"),
        (embeddings_key("0abc"), "embeddings/0a/0abc.safetensors"),
    ],
)
def test_a_key_names_job_phase_and_attempt(key: str, expected: str) -> None:
    """Whoever looks into the store finds their way without the database."""
    assert key == expected
    assert check_key(key) == key


@pytest.mark.parametrize("make", [latents_key, artifact_key, manifest_key])
def test_attempts_never_share_a_key(make: Callable[[JobId, int], str]) -> None:
    """A late writer of an old attempt cannot touch what counts."""
    assert make(JOB, 1) != make(JOB, 2)


def test_checkpoints_sort_by_step() -> None:
    """The last key of a folder is the last step."""
    assert checkpoint_key(JOB, 1, 9) < checkpoint_key(JOB, 1, 10)


@given(st.text("ab./~\n ä") | st.text())
def test_a_legal_key_stays_below_its_root(text: str) -> None:
    """Whatever is accepted as a key has only plain parts."""
    if is_key(text):
        assert all(part not in {"", ".", ".."} for part in text.split("/"))
        assert text.isascii()
        assert text.isprintable()
    else:
        with pytest.raises(ArtifactError):
            check_key(text)


@pytest.mark.parametrize(
    ("custom_id", "expected"),
    [
        ("a cat-1_b.c", "a cat-1_b.c.mp4"),
        ("Kätzchen 猫 बिल्ली", "Kätzchen 猫 बिल्ली.mp4"),
        ("50%", "50%25.mp4"),
        ("a/b\\c", "a%2Fb%5Cc.mp4"),
        ("..", "%2E..mp4"),
        (".hidden", "%2Ehidden.mp4"),
        ("-rf", "%2Drf.mp4"),
        (" x", "%20x.mp4"),
        ("a:b*?", "a%3Ab%2A%3F.mp4"),
        ("🐈", "%F0%9F%90%88.mp4"),
        ("", "%.mp4"),
    ],
)
def test_an_id_becomes_a_name_that_people_recognise(custom_id: str, expected: str) -> None:
    """What can stay stays; what could do harm is percent-escaped."""
    assert file_name_for(custom_id, ".mp4") == expected


def test_a_long_id_becomes_a_name_that_fits() -> None:
    """Two long ids that differ at the end only have two names."""
    one, other = (file_name_for("猫" * 127 + end, ".mp4") for end in "ab")

    assert one != other
    assert one.startswith("猫" * 60)
    assert one.endswith(".mp4")
    assert max(len(one.encode()), len(other.encode())) <= 240


@given(IDS, IDS)
@example("a/b", "a%2Fb")
@example("", "%")
@example(".a", "%2Ea")
@example("x" * 300, "x" * 301)
def test_different_ids_have_different_names(one: str, other: str) -> None:
    """No video can take another's name."""
    assume(one != other)

    assert file_name_for(one, ".mp4") != file_name_for(other, ".mp4")


@given(IDS, st.sampled_from(["", ".mp4", ".json"]))
def test_a_name_is_one_visible_part_of_a_path(custom_id: str, suffix: str) -> None:
    """A name has no separator, is not hidden, is no option, and fits any file system."""
    name = file_name_for(custom_id, suffix)

    assert not {"/", "\\", "\0", "\n"} & set(name)
    assert name[0] not in {".", "-", " "}
    assert name.endswith(suffix)
    assert len(name.encode()) <= 240


def test_keys_that_are_made_here_are_known_and_others_are_not() -> None:
    """And the temporary files of killed writers beside them, but nothing that only looks alike."""
    job = JobId("b0123456789-000001")
    made = [
        checkpoint_key(job, 2, 15),
        latents_key(job, 12),
        artifact_key(job, 1),
        manifest_key(job, 1),
        embeddings_key("ab" * 32),
        f"jobs/{job}/dit.a1/.{'0f' * 16}~",
        f"embeddings/ab/.{'0f' * 16}~",
    ]
    others = [
        "video.mp4",
        "jobs/video.mp4",
        f"jobs/{job}/video.mp4",
        f"jobs/{job}/dit.a1/notes.txt",
        f"jobs/{job}/dit.a1/more/video.mp4",
        f"my/jobs/{job}/vae.a1/video.mp4",
        f"jobs/{job}/vae.a1/video.mp4.bak",
        "embeddings/ab/readme.md",
        ".keep~",
    ]

    assert all(map(is_made_here, made))
    assert not any(map(is_made_here, others))
