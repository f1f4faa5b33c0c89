"""Seconds by size, through what was measured: straight lines in log-log, held in beyond the ends.

Pure. A size is a number of tokens for steps, of pixels times frames for decoding.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import exp, log

from ddit_batch.cost import Basis
from ddit_batch.job import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGeometry:
    """How a video becomes the DiT's tokens.

    A patch may hang over the edge, so sizes are rounded up. The VAE is causal in time: its first
    latent frame stands for one frame, each further one for ``frames_per_latent``.
    """

    px_per_token: int = 16
    """Side of a token: the VAE's stride times the patch size."""
    frames_per_latent: int = 4
    """The VAE's stride in time."""
    latents_per_token: int = 1
    """The patch size in time."""
    chunk_frames: int = 0
    """Frames that the VAE takes at a time, each chunk with a first latent frame of its own, as
    Open-Sora's does with 17; 0: all at once."""

    def tokens(self, shape: Shape) -> int:
        """Tokens of a video of *shape*."""
        rows = -(-shape.height // self.px_per_token)
        columns = -(-shape.width // self.px_per_token)
        return rows * columns * -(-self._latents(shape.num_frames) // self.latents_per_token)

    def _latents(self, frames: int) -> int:
        chunk = self.chunk_frames or frames
        whole, rest = divmod(frames, chunk)
        return whole * self._causal(chunk) + (self._causal(rest) if rest else 0)

    def _causal(self, frames: int) -> int:
        return 1 + -(-(frames - 1) // self.frames_per_latent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Seconds by size through points, exact at each of them."""

    sizes: tuple[float, ...]
    """Ascending, without repeats."""
    seconds: tuple[float, ...]
    least_exponent: float
    """Beyond the ends seconds grow as a power of the size: that of the nearest two points, but no
    less than this"""
    most_exponent: float
    """and no more than this."""
    lone_exponent: float
    """The power where there is only one point."""

    @classmethod
    def through(
        cls,
        points: Iterable[tuple[float, float]],
        *,
        least_exponent: float,
        most_exponent: float,
        lone_exponent: float,
    ) -> Curve:
        """The curve through at least one (size, seconds), all positive.

        Of points of one size, as a video and the same on its side, it takes the geometric mean.
        """
        by_size = [
            (size, [seconds for _, seconds in same])
            for size, same in groupby(sorted(points), key=lambda point: point[0])
        ]
        return cls(
            sizes=tuple(size for size, _ in by_size),
            seconds=tuple(
                same[0] if len(same) == 1 else exp(sum(map(log, same)) / len(same))
                for _, same in by_size
            ),
            least_exponent=least_exponent,
            most_exponent=most_exponent,
            lone_exponent=lone_exponent,
        )

    def at(self, size: float) -> tuple[float, Basis]:
        """Seconds at *size*, and whether that is between the points or beyond them."""
        if size < self.sizes[0]:
            return self._beyond(size, end=0, inner=1), Basis.EXTRAPOLATED
        if size > self.sizes[-1]:
            last = len(self.sizes) - 1
            return self._beyond(size, end=last, inner=last - 1), Basis.EXTRAPOLATED
        right = bisect_left(self.sizes, size)
        if self.sizes[right] == size:
            return self.seconds[right], Basis.INTERPOLATED
        low, high = sorted((self.seconds[right - 1], self.seconds[right]))
        seconds = self._power(size, right - 1, self._exponent(right - 1, right))
        return min(max(seconds, low), high), Basis.INTERPOLATED

    @property
    def is_monotone(self) -> bool:
        """No larger size takes less."""
        return all(a <= b for a, b in pairwise(self.seconds))

    def _beyond(self, size: float, *, end: int, inner: int) -> float:
        if len(self.sizes) == 1:
            return self._power(size, end, self.lone_exponent)
        exponent = self._exponent(*sorted((end, inner)))
        return self._power(size, end, min(max(exponent, self.least_exponent), self.most_exponent))

    def _exponent(self, left: int, right: int) -> float:
        return log(self.seconds[right] / self.seconds[left]) / log(
            self.sizes[right] / self.sizes[left]
        )

    def _power(self, size: float, at: int, exponent: float) -> float:
        return float(self.seconds[at] * (size / self.sizes[at]) ** exponent)
