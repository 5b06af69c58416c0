"""The operators' command, `broker`."""


def main() -> None:
    """Run the command line and exit with its code."""
    from broker.cli.app import app

    app()
