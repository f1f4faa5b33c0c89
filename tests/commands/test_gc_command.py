"""``ddit gc`` on a real store and database: what it finds, what it leaves, what it deletes."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from finished_batch import Driver, a_request
from sqlalchemy import Engine

from ddit_batch import artifact_keys as keys
from ddit_batch.artifact import ArtifactStore
from ddit_batch.cli import main
from ddit_batch.db.submission import job_id, submit
from ddit_batch.db.wishes import cancel, retry
from ddit_batch.garbage import find_garbage
from ddit_batch.job import Phase

HOUR_S = 3600.0
EMBEDDINGS = keys.embeddings_key("ab" * 32)


class Scene:
    """Jobs that have come to different ends, their files, and files that nobody needs."""

    def __init__(self, engine: Engine, store: ArtifactStore) -> None:
        lines = [a_request(line) for line in range(1, 6)]
        made = submit(engine, lines, content_hash="gc", name="gc.jsonl", out_url=None)
        self.engine, self.store, self.driver = engine, store, Driver(engine)
        names = ("succeeded", "cancelled", "failed", "running", "queued")
        self.jobs = {name: job_id(made.batch_id, at) for at, name in enumerate(names, 1)}
        self.put(EMBEDDINGS)
        for name in names[:4]:
            claim = self.driver.claim(self.jobs[name], Phase.ENCODE)
            self.driver.claims.finish_encode(claim, embeddings_key=EMBEDDINGS)
        self._denoise("succeeded")
        self._denoise("failed")
        self._begin("running")
        self._begin("cancelled")
        self._end()

    def put(self, *names: str) -> None:
        """Have files in the store that were written two hours ago."""
        for name in names:
            self.store.put(name, name.encode())
            written_s = time.time() - 2 * HOUR_S
            os.utime(Path(self.store.url) / name, (written_s, written_s))

    def _begin(self, name: str) -> None:
        """Its newest two checkpoints are named; that of an earlier attempt is not."""
        job = self.jobs[name]
        claim = self.driver.claim(job, Phase.DIT)
        self.put(keys.checkpoint_key(job, 1, 2), keys.checkpoint_key(job, 9, 1))
        self.put(keys.checkpoint_key(job, 1, 4))
        for step in (2, 4):
            key = keys.checkpoint_key(job, 1, step)
            self.driver.claims.save_checkpoint(claim, key=key, step=step)
        if name == "cancelled":
            self.driver.claims.give_back(claim, reason="test")

    def _denoise(self, name: str) -> None:
        job = self.jobs[name]
        claim = self.driver.claim(job, Phase.DIT)
        self.put(keys.latents_key(job, 1))
        self.driver.claims.finish_dit(claim, latents_key=keys.latents_key(job, 1), vae_queue="vae")

    def _end(self) -> None:
        claims, job = self.driver.claims, self.jobs["succeeded"]
        video, manifest = keys.artifact_key(job, 1), keys.manifest_key(job, 1)
        self.put(video, manifest, keys.artifact_key(job, 8))
        claim = self.driver.claim(job, Phase.VAE)
        claims.finish_vae(claim, artifact_key=video, manifest_key=manifest)
        claim = self.driver.claim(self.jobs["failed"], Phase.VAE)
        claims.fail(claim, code="x", message="y", retryable=False, max_failures=1)
        cancel(self.engine, [self.jobs["cancelled"]])

    @property
    def unneeded(self) -> set[str]:
        """What nobody needs."""
        jobs = self.jobs
        return {
            keys.latents_key(jobs["succeeded"], 1),
            keys.artifact_key(jobs["succeeded"], 8),
            keys.checkpoint_key(jobs["cancelled"], 1, 2),
            keys.checkpoint_key(jobs["cancelled"], 1, 4),
            keys.checkpoint_key(jobs["cancelled"], 9, 1),
            keys.checkpoint_key(jobs["running"], 9, 1),
        }

    @property
    def files(self) -> set[str]:
        """All files of the store."""
        root = Path(self.store.url)
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def scene(
    engine: Engine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Scene:
    """Where commands find it."""
    monkeypatch.setenv("DDIT_DATABASE_URL", database_url)
    monkeypatch.setenv("DDIT_ARTIFACTS_URL", str(tmp_path / "store"))
    return Scene(engine, ArtifactStore(str(tmp_path / "store")))


def ddit(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def paths(result: Result) -> set[str]:
    assert result.exit_code == 0, result.output
    return {json.loads(line)["path"] for line in result.stdout.splitlines()}


def test_what_nobody_needs_is_listed_and_only_deleted_when_asked(scene: Scene) -> None:
    """Everything that Postgres names and somebody may read stays, and a second time finds none."""
    before = scene.files

    listed = ddit("gc")
    as_json = paths(ddit("gc", "--json"))
    untouched = scene.files
    deleted = ddit("gc", "--delete", "--json")
    again = ddit("gc", "--delete")

    assert as_json == paths(deleted) == scene.unneeded
    assert {line.split()[-1] for line in listed.stdout.splitlines()} == scene.unneeded
    size_bytes = sum(len(name) for name in scene.unneeded)
    count = len(scene.unneeded)
    assert listed.stderr.startswith(f"{count} files, {size_bytes} bytes, not needed; ")
    assert untouched == before
    assert scene.files == before - scene.unneeded
    assert (again.stdout, again.stderr) == ("", "no files\n")


def test_files_that_are_not_ours_are_never_touched(scene: Scene) -> None:
    """Whatever they are called and wherever they lie; our temporary files are ours."""
    job = scene.jobs["running"]
    strange = {"notes.txt", f"jobs/{job}/dit.a1/notes.txt", f"jobs/{job}/dit.a1/x/video.mp4"}
    temporary = f"jobs/{job}/dit.a1/.{'0f' * 16}~"
    scene.put(*strange)
    (Path(scene.store.url) / temporary).write_bytes(b"half")
    os.utime(Path(scene.store.url) / temporary, (0, 0))

    deleted = paths(ddit("gc", "--delete", "--json"))

    assert deleted == scene.unneeded | {temporary}
    assert strange <= scene.files


def test_what_is_young_may_be_named_any_moment(scene: Scene) -> None:
    """It stays for an hour, or for as long as is said."""
    young = keys.latents_key(scene.jobs["running"], 1)
    scene.store.put(young, b"just written")

    kept = ddit("gc", "--delete")
    time.sleep(1.1)
    older = paths(ddit("gc", "--delete", "--json", "--older", "1s"))

    assert kept.stderr.endswith("; 1 younger ones stay\n")
    assert older == {young}


def test_failed_job_keeps_what_a_retry_needs(scene: Scene) -> None:
    """After a collection it goes on from its latents."""
    ddit("gc", "--delete")

    assert retry(scene.engine, [scene.jobs["failed"]]) == 1

    assert keys.latents_key(scene.jobs["failed"], 1) in scene.files


def test_what_was_named_while_the_store_was_listed_is_kept(scene: Scene) -> None:
    """The database is asked after the list was made."""
    job = scene.jobs["running"]
    late = keys.checkpoint_key(job, 1, 3)
    scene.put(late)

    class Slow(ArtifactStore):
        def files(self) -> tuple:
            found = super().files()
            view = next(
                j
                for j in scene.driver.store.snapshot(window=9, may_lose_workers=False).jobs
                if j.job_id == job
            )
            claims = scene.driver.claims
            claim = claims.claim(job, Phase.DIT, view.attempt, view.holder)
            assert claims.save_checkpoint(claim, key=late, step=3)
            return found

    found = find_garbage(
        Slow(scene.store.url), scene.engine, now=datetime.now(UTC), grace=timedelta(hours=1)
    )

    assert late not in {file.path for file in found.files}
