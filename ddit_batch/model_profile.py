"""What was measured of one model on one kind of device, ready to be asked for any shape and dop.

Pure. ``profile.py`` makes one from a file; ``cost_model.py`` asks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ddit_batch.cost import Basis, weakest
from ddit_batch.cost_curve import Curve, TokenGeometry
from ddit_batch.job import Shape

LINEAR, QUADRATIC = 1.0, 2.0
"""What a step grows by with its tokens lies between: all but attention is linear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """Seconds of one model: of a step by shape and dop, of encode, of decode by shape."""

    name: str
    """The profile's."""
    models: tuple[str, ...]
    """Names of models that it speaks for; ``*`` and ``?`` are wildcards, case does not count."""
    heads: int | None
    """Attention heads of the DiT, which a legal dop divides; None: not known."""
    geometry: TokenGeometry
    steps: int
    """Steps of a job when nobody says otherwise."""
    step_s: Mapping[int, Mapping[Shape, float]]
    """Seconds of a step by dop and shape; at dop 1 there is at least one."""
    row_basis: Mapping[Shape, Basis] = field(default_factory=dict)
    """How the rows of ``step_s`` are known that were not measured."""
    is_measured: bool = True
    """False: all of ``step_s`` is assumed."""
    lone_exponent: float = LINEAR
    """Power of the tokens by which a step grows, at a dop of which one shape was measured."""
    doubling_efficiency: float | None = None
    """What is assumed of dops that were not measured: t(2k) = t(k) / (2 * this); None: nothing,
    so that those dops are not used."""
    assumed_max_dop: int = 8
    """Up to which dop that is assumed."""
    encode_s: float
    encode_basis: Basis
    decode_s: Mapping[Shape, float]
    """Seconds of decoding by shape; at least one."""
    decode_is_measured: bool
    """False: ``decode_s`` is assumed, too, not only what is derived from it."""
    _steps: Mapping[int, Curve] = field(init=False, repr=False, compare=False)
    _decode: Curve = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        curves = {
            dop: Curve.through(
                ((self.geometry.tokens(shape), s) for shape, s in rows.items()),
                least_exponent=LINEAR,
                most_exponent=QUADRATIC,
                lone_exponent=self.lone_exponent,
            )
            for dop, rows in sorted(self.step_s.items())
        }
        decode = Curve.through(
            ((_pixels_frames(shape), s) for shape, s in self.decode_s.items()),
            least_exponent=LINEAR,
            most_exponent=LINEAR,
            lone_exponent=LINEAR,
        )
        object.__setattr__(self, "_steps", curves)
        object.__setattr__(self, "_decode", decode)

    def speaks_for(self, model: str) -> bool:
        """Whether *model* is one of ``models``."""
        return any(fnmatchcase(model.lower(), pattern.lower()) for pattern in self.models)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The measured shapes, in order."""
        return tuple(sorted({shape for rows in self.step_s.values() for shape in rows}))

    @property
    def video_shapes(self) -> tuple[Shape, ...]:
        """The measured shapes of more than one frame, in order."""
        return tuple(shape for shape in self.shapes if shape.num_frames > 1)

    def dops(
        self,
        shape: Shape,
        *,
        heads: int | None = None,
        max_dop: int | None = None,
        pads: bool = True,
    ) -> tuple[int, ...]:
        """The legal dops for *shape*: those that are known and divide the heads, and 1.

        Args:
            shape: Of the video.
            heads: Attention heads; None: as the profile says.
            max_dop: No dop is larger; None sets no limit.
            pads: The backend pads the tokens; if not, a dop divides them, too.
        """
        heads = self.heads if heads is None else heads
        known = set(self._steps)
        if self.doubling_efficiency is not None:
            known |= {2**i for i in range(self.assumed_max_dop.bit_length())}
        tokens = self.geometry.tokens(shape)
        return tuple(
            dop
            for dop in sorted(known | {1})
            if (heads is None or heads % dop == 0)
            and (pads or tokens % dop == 0)
            and (max_dop is None or dop <= max_dop or dop == 1)
        )

    def step(self, shape: Shape, dop: int) -> tuple[float, Basis]:
        """Seconds of a step of *shape* at *dop*, one of ``dops``, and how they are known."""
        if dop not in self._steps:
            assert self.doubling_efficiency is not None
            half, basis = self.step(shape, dop // 2)
            return half / (2 * self.doubling_efficiency), weakest((basis, Basis.ASSUMED))
        measured = self.step_s[dop].get(shape)
        if measured is not None:
            seconds, basis = measured, self.row_basis.get(shape, Basis.MEASURED)
        else:
            seconds, basis = self._steps[dop].at(self.geometry.tokens(shape))
        return seconds, basis if self.is_measured else Basis.ASSUMED

    def decode(self, shape: Shape) -> tuple[float, Basis]:
        """Seconds of decoding *shape* on one worker: beyond what is known by pixels and frames."""
        given = self.decode_s.get(shape)
        if given is not None:
            return given, Basis.MEASURED if self.decode_is_measured else Basis.ASSUMED
        seconds, basis = self._decode.at(_pixels_frames(shape))
        between = self.decode_is_measured and basis is Basis.INTERPOLATED
        return seconds, Basis.INTERPOLATED if between else Basis.ASSUMED


def _pixels_frames(shape: Shape) -> float:
    return float(shape.height * shape.width * shape.num_frames)
