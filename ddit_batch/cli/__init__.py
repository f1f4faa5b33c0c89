"""The command line. Placeholder until the commands stand."""


def main() -> None:
    """Say that there is nothing yet."""
