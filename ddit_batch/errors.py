"""Every error of the project, in one tree.

::

    DditError
    ├── RequestError            the user's input; the message names file, line, rule and cure
    ├── ConfigError             a setting, a config file or an installation
    ├── NotFound                an id that the database does not know
    ├── ServiceError            an embedded service did not start, or stopped by itself
    ├── ArtifactError           a handoff, checkpoint or artifact is missing or unreadable
    ├── RecordError             a decision on record that this release cannot read
    ├── GroupBroken             an SP group lost a member; the last completed step is good
    ├── IllegalTransition       our bug: a move that the lifecycle table does not know
    ├── StateConflict           lost a race: somebody else has moved the job on; nothing was changed
    │   └── LeadershipLost      another scheduler leads now
    └── PhaseError              a phase failed with a cause of its own
        ├── RetryablePhaseError another attempt may succeed
        │   └── StorageFailed   the artifact store is full, forbidden or away
        └── OutOfMemory         this shape does not fit on this worker

A message says what, the value, the rule and the cure. Errors of libraries are translated at the
edges with ``raise ... from``.
"""


class DditError(Exception):
    """The root: catch this to catch everything that ddit-batch raises on purpose."""


class RequestError(DditError):
    """The user's input is wrong."""


class ConfigError(DditError):
    """A setting, a config file or the installation is wrong."""


class NotFound(DditError):  # noqa: N818 -- the usual word
    """An id that a user gave is not in the database."""


class ServiceError(DditError):
    """An embedded service (Postgres, Valkey, scheduler, worker) did not come up or went away."""


class ArtifactError(DditError):
    """A handoff, checkpoint or artifact is missing from the store or cannot be read."""


class RecordError(DditError):
    """A decision on record is damaged, or another release wrote it."""


class GroupBroken(DditError):  # noqa: N818 -- named for the event
    """A member of an SP group died, hung or left; the state of the last completed step is good."""


class IllegalTransition(DditError):  # noqa: N818 -- named for the event, as the lifecycle does
    """A move that the lifecycle table does not know was asked for; nothing was changed."""


class StateConflict(DditError):  # noqa: N818
    """The job is not in the state or attempt that the writer believed; nothing was changed."""


class LeadershipLost(StateConflict):
    """Another scheduler has taken the lead; this one's transaction was rolled back."""


class PhaseError(DditError):
    """A phase failed with a cause of its own: the same attempt would fail again."""


class RetryablePhaseError(PhaseError):
    """A phase failed, and another attempt may succeed."""


class StorageFailed(RetryablePhaseError):  # noqa: N818 -- as the cause is called
    """The storage did not take or give what it should; the same bytes may be fine later."""


class OutOfMemory(PhaseError):  # noqa: N818
    """The shape does not fit into the memory of this worker's device."""
