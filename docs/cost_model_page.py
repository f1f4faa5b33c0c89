"""The parts of ``cost-model.md`` that the code can produce."""

from __future__ import annotations

from collections.abc import Iterator

from fields_table import fields_table

from ddit_batch.profile import Profile, known_profiles


def profiles_table() -> str:
    """The shipped profiles: what they speak for, on what, and from where."""
    rows = ["| profile | models | device | shapes | dops | source |", "|---|---|---|---|---|---|"]
    for profile in known_profiles().values():
        numbers = profile.for_model()
        legal = sorted({dop for shape in numbers.shapes for dop in numbers.dops(shape)})
        rows.append(
            f"| `{profile.name}` | {', '.join(f'`{model}`' for model in profile.models)} "
            f"| {profile.provenance.device} | {len(profile.table)} "
            f"| {', '.join(map(str, legal))} | {', '.join(profile.provenance.sources)} |"
        )
    return "\n".join(rows)


def doubts() -> str:
    """What each shipped profile says against itself, and what it assumes."""
    return "\n".join(
        line for profile in known_profiles().values() for line in (*_doubts(profile), "")
    )


def _doubts(profile: Profile) -> Iterator[str]:
    yield f"**`{profile.name}`** ({profile.provenance.date})\n"
    yield from (f"- {doubt}" for doubt in profile.provenance.doubts)
    for row in profile.table:
        if row.suspect:
            published = ", ".join(f"{s:g} s at dop {dop}" for dop, s in row.suspect.items())
            yield f"- {row.shape}: {published} not used. {row.note}"
    if why := getattr(profile.encode, "why", ""):
        yield f"- Encode, {profile.encode.seconds:g} s, is assumed: {why}"
    if assumed := profile.decode.assumed:
        yield f"- Decode, {assumed.seconds:g} s for {assumed.shape}, is assumed: {assumed.why}"


def format_table() -> str:
    """Every field of a profile file with its docstring."""
    return fields_table(Profile)


PARTS = {"profiles": profiles_table, "profile doubts": doubts, "profile format": format_table}
