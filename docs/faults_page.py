"""The table of ``reliability.md``: each fault, what must hold, and the tests that show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row."""

    what: str
    gate: str
    """Besides the gates of all."""
    tests: tuple[str, ...]
    """``file::function``, below ``tests/``."""
    is_left: str = ""
    """What of it no test shows."""


FAULTS: tuple[Fault, ...] = (
    Fault(
        what="kill -9 of an encode, DiT or VAE worker: idle, in mid-task, between result and "
        "acknowledgement",
        gate="another worker goes on; what was committed is not done again",
        tests=(
            "e2e/test_killed_worker.py::test_job_of_killed_worker_goes_on_with_a_spare",
            "e2e/test_killed_worker.py::test_job_of_killed_worker_goes_on_with_its_successor",
            (
                "e2e/test_lost_services.py::"
                "test_worker_that_dies_between_its_result_and_its_acknowledgement_costs_nothing"
            ),
            (
                "scheduler/test_live_faults.py::"
                "test_message_that_was_taken_but_never_claimed_is_sent_again"
            ),
            "scheduler/test_live_faults.py::test_message_to_a_dead_worker_goes_to_a_live_one",
            "workers/test_deliverer.py::test_what_is_due_is_made_noted_and_tidied",
        ),
    ),
    Fault(
        what="kill -9 at a step; resumed at another dop",
        gate="no more steps done again than the checkpoint interval; equal bytes",
        tests=(
            "e2e/test_killed_worker.py::test_job_of_killed_worker_goes_on_with_a_spare",
            "phases/test_checkpoint_pace.py::test_no_more_steps_are_at_stake_than_allowed",
            "e2e/test_demo_model.py::test_videos_show_their_prompts_whatever_happens_on_the_way",
            (
                "e2e/test_groups_lose_members.py::"
                "test_killed_leader_costs_an_attempt_and_its_follower_leads_on"
            ),
        ),
    ),
    Fault(
        what="kill -9 of one worker of a group",
        gate="the survivors go on with the same processes; the wait is bounded",
        tests=(
            (
                "e2e/test_groups_lose_members.py::"
                "test_killed_follower_costs_its_step_and_the_leader_goes_on_in_the_same_process"
            ),
            "phases/test_group_faults.py::test_a_follower_killed_in_mid_step_costs_no_step",
            "phases/test_group_faults.py::test_survivors_of_a_group_of_four_regroup",
        ),
        is_left="NCCL: marked `gpu` and not run, no two GPUs were available",
    ),
    Fault(
        what="kill during a resize: before, in and after the switch",
        gate="the old group goes on, or the new one does",
        tests=(
            "e2e/test_groups_lose_members.py::test_newcomer_that_dies_while_it_joins_costs_nothing",
            (
                "e2e/test_groups_lose_members.py::"
                "test_scheduler_that_restarts_during_a_resize_goes_on_with_the_same_plan"
            ),
            (
                "phases/test_group_faults.py::"
                "test_a_newcomer_that_dies_before_it_has_the_state_costs_no_step"
            ),
            (
                "phases/test_group_faults.py::"
                "test_a_newcomer_that_never_comes_leaves_the_old_group_stepping"
            ),
        ),
    ),
    Fault(
        what="SIGTERM and `ddit drain`",
        gate="finished, or a checkpoint and the job given back, within the grace time",
        tests=(
            "e2e/test_operations.py::test_worker_that_leaves_gives_its_job_back_or_finishes_it",
            "e2e/test_operations.py::test_member_of_a_group_leaves_it_at_a_step_boundary",
            "e2e/test_operations.py::test_idle_worker_leaves_at_once",
        ),
    ),
    Fault(
        what="broker restarted, emptied, stopped, out of memory",
        gate="its queues are filled again from Postgres; nothing lost, nothing doubled",
        tests=(
            "e2e/test_lost_services.py::test_every_job_ends_once",
            "scheduler/test_live_faults.py::test_emptied_broker_is_filled_again_from_postgres",
            "scheduler/test_live_faults.py::test_letter_is_written_again_after_the_broker_forgot_it",
        ),
    ),
    Fault(
        what="Postgres restarted in mid-commit; a commit whose answer is lost; connections cut; "
        "deadlock",
        gate="done once, and known to be",
        tests=(
            "e2e/test_lost_services.py::test_run_watches_on_through_an_outage_of_postgres",
            "e2e/test_lost_services.py::test_every_job_ends_once",
            "db/test_db_outages.py::test_finish_whose_answer_was_lost_is_done_once",
            "db/test_db_outages.py::test_connections_that_died_in_the_pool_are_replaced",
            "db/test_db_outages.py::test_deadlock_is_tried_again",
            ("db/test_db_outages.py::test_pool_in_which_all_connections_are_in_use_is_asked_again"),
            "db/test_db_outages.py::test_server_that_has_no_connection_left_is_asked_again",
            "scheduler/test_live_faults.py::test_nobody_is_lost_because_the_database_stood_still",
        ),
    ),
    Fault(
        what="messages delivered twice, late, and again and again",
        gate="one attempt wins; the late writer is refused",
        tests=(
            "e2e/test_lost_services.py::test_every_job_ends_once",
            "db/test_claims.py::test_of_claims_at_once_one_wins",
            "db/test_claims.py::test_late_message_of_an_older_attempt_is_refused",
            "db/test_fencing.py::test_zombie_changes_nothing_once_its_job_was_taken_back",
        ),
    ),
    Fault(
        what="SIGSTOP beyond the lease, then SIGCONT",
        gate="what it then writes is refused, and it works again",
        tests=(
            "e2e/test_zombie_worker.py::test_dit_zombie_changes_nothing_and_works_again",
            "e2e/test_zombie_worker.py::test_vae_zombie_changes_nothing",
            (
                "db/test_db_outages.py::"
                "test_process_that_is_frozen_in_a_transaction_blocks_nobody_for_long"
            ),
            "db/test_fencing.py::test_checkpoint_of_a_zombie_is_refused",
        ),
    ),
    Fault(
        what="a clock that is an hour wrong",
        gate="nobody is taken for lost: leases are on the clock of the database",
        tests=(
            "e2e/test_clock_skew.py::test_worker_with_a_wrong_clock_keeps_its_lease_and_its_jobs",
            (
                "e2e/test_clock_skew.py::"
                "test_scheduler_with_a_wrong_clock_takes_the_dead_for_lost_and_nobody_else"
            ),
            "db/test_leases.py::test_renewal_extends_the_lease_on_the_clock_of_the_database",
        ),
    ),
    Fault(
        what="a job that kills its workers (SIGSEGV, SIGABRT, SIGKILL)",
        gate="a dead letter with its cause after three; its neighbours go on; not run again",
        tests=("e2e/test_poison.py::test_job_that_kills_three_workers_is_a_dead_letter",),
    ),
    Fault(
        what="out of memory at one shape",
        gate="that job fails with advice; the next smaller one on the same worker succeeds",
        tests=(
            "e2e/test_full_memory.py::test_job_that_does_not_fit_fails_and_its_neighbours_do_not",
            "phases/test_group_faults.py::test_out_of_memory_in_a_group_keeps_its_name",
        ),
    ),
    Fault(
        what="disk full; a remote store that fails or is slow",
        gate="no half file under a name that counts; tried again; admission stops, not the service",
        tests=(
            "e2e/test_full_disk.py::test_full_disk_stops_admission_and_not_the_service",
            (
                "workers/test_storage.py::"
                "test_full_disk_is_a_failure_after_the_patience_and_leaves_no_file"
            ),
            "workers/test_storage.py::test_remote_store_that_fails_for_a_moment_is_asked_again",
            "test_artifact.py::test_a_writer_killed_in_the_middle_leaves_no_key",
        ),
    ),
    Fault(
        what="a checkpoint or handoff that is damaged or missing",
        gate="one back, or over again, and the record says so",
        tests=(
            "e2e/test_lost_files.py::test_damaged_checkpoint_costs_the_steps_since_the_one_before",
            "e2e/test_lost_files.py::test_job_without_a_checkpoint_that_can_be_read_starts_over",
            "e2e/test_lost_files.py::test_damaged_handoffs_are_made_again",
            "e2e/test_lost_files.py::test_lost_latents_are_made_again",
        ),
    ),
    Fault(
        what="one file submitted twice, at once, and by a process that is killed half-way",
        gate="one batch, whole",
        tests=(
            (
                "input/test_submit_at_once.py::"
                "test_two_processes_that_submit_one_file_at_once_give_one_batch"
            ),
            (
                "input/test_submit_at_once.py::"
                "test_a_submission_that_is_killed_leaves_the_whole_batch_or_nothing"
            ),
            "e2e/test_commands.py::test_same_lines_are_the_same_batch",
        ),
    ),
    Fault(
        what="odd input: BOM, CRLF, blank lines, duplicate ids, NaN, NUL, bad UTF-8, paths as ids; "
        "garbage in the broker",
        gate="all bad lines named, nothing submitted, no traceback; no process ends by what it "
        "reads",
        tests=(
            "test_prompt_file.py::test_no_json_makes_it_raise",
            "commands/test_hostile_words.py::test_no_words_make_a_command_break",
            "scheduler/test_hostile_queue.py::test_worker_outlives_garbage_in_its_queue",
            "scheduler/test_messages.py::test_spoilt_letter_is_read_whole_or_not_at_all",
            "test_artifact.py::test_a_delivered_name_cannot_leave_its_folder",
            "test_artifact.py::test_a_key_that_could_lead_out_is_refused",
        ),
    ),
    Fault(
        what="cancel: queued, running, in a group, during a resize, with the end, a whole batch",
        gate="the work stops at the next step boundary, and how long that took is on record",
        tests=(
            "e2e/test_cancels.py::test_job_stops_in_the_middle_of_any_phase",
            "e2e/test_cancels.py::test_job_stops_with_its_group",
            "e2e/test_cancels.py::test_whole_batch_stops_wherever_its_jobs_are",
            "e2e/test_cancels.py::test_cancel_that_comes_with_the_end_leaves_one_end",
            "db/test_wishes.py::test_cancels_and_ends_at_once_leave_each_job_with_one_end",
        ),
    ),
    Fault(
        what="two schedulers; one killed between decision and message; one that lost its lock",
        gate="one leads; the writes of the other are refused",
        tests=(
            "e2e/test_lost_services.py::test_second_scheduler_takes_over",
            "scheduler/test_scheduler_service.py::test_of_two_schedulers_one_leads",
            "scheduler/test_scheduler_service.py::test_write_of_the_deposed_leader_is_refused",
            "scheduler/test_scheduler_service.py::test_leader_that_loses_its_lock_makes_way",
            (
                "scheduler/test_live_faults.py::"
                "test_what_could_not_be_sent_is_sent_when_the_broker_is_back"
            ),
        ),
    ),
    Fault(
        what="a small job behind a flood of large ones, and the reverse",
        gate="its wait is bounded",
        tests=(
            "simulator/test_aging.py::test_overdue_job_waits_for_a_boundary_and_a_decode_at_most",
            (
                "policy/test_elastic_properties.py::"
                "test_overdue_job_waits_for_none_but_earlier_overdue_ones"
            ),
        ),
    ),
    Fault(
        what="a batch of ten beside one of a thousand",
        gate="workers by shares",
        tests=(
            "policy/test_elastic.py::test_batches_of_equal_shares_get_equally_many_workers",
            "policy/test_elastic.py::test_workers_go_by_share",
        ),
    ),
    Fault(
        what="a worker of a group that hangs in a collective; a worker that hangs alone",
        gate="noticed in bounded time; the others go on",
        tests=(
            (
                "e2e/test_groups_lose_members.py::"
                "test_frozen_follower_costs_the_group_timeout_and_the_leader_goes_on"
            ),
            "phases/test_group_faults.py::test_a_hung_follower_is_given_the_groups_time",
            (
                "e2e/test_hung_worker.py::"
                "test_worker_that_hangs_loses_its_job_and_gets_no_other_until_it_has_answered"
            ),
            (
                "e2e/test_hung_worker.py::"
                "test_job_that_hangs_every_worker_ends_and_they_end_themselves"
            ),
        ),
        is_left="NCCL: marked `gpu` and not run, no two GPUs were available",
    ),
    Fault(
        what="an old worker with a new scheduler, and the reverse; a migration with jobs in flight",
        gate="served or refused, never misunderstood",
        tests=(
            "e2e/test_operations.py::test_message_of_another_protocol_is_left_alone",
            "e2e/test_operations.py::test_running_cluster_survives_an_additive_migration",
        ),
    ),
    Fault(
        what="Flower killed",
        gate="no effect on any state: it only listens; and it comes back",
        tests=("embedded/test_supervisor.py::test_killed_children_are_started_again",),
    ),
    Fault(
        what="a file of ten or a hundred thousand lines",
        gate="submit, status and cancel in seconds",
        tests=(
            "test_prompt_file.py::test_a_hundred_thousand_lines_take_seconds",
            "views/test_view_speed.py::test_answers_among_100_000_jobs_come_at_once",
            "db/test_wishes.py::test_ten_thousand_jobs_are_cancelled_in_seconds",
        ),
    ),
    Fault(
        what="all of it at random",
        gate="the gates of all: `benchmarks/soak.py`, below",
        tests=("docs/test_faults_page.py::test_plan_of_a_soak_is_the_seeds_alone",),
    ),
)


def table() -> str:
    """The rows in order."""
    lines = ["| | fault | must hold | shown by |", "|---|---|---|---|"]
    for number, fault in enumerate(FAULTS, 1):
        shown = "<br>".join(f"`{test.rpartition('::')[2]}`" for test in fault.tests)
        left = f"<br>**Not shown:** {fault.is_left}" if fault.is_left else ""
        lines.append(f"| {number} | {fault.what} | {fault.gate} | {shown}{left} |")
    return "\n".join(lines)


PARTS: Mapping[str, Callable[[], str]] = {"faults": table}
