"""The command `tidegate`. `run` is dispatched before anything that only people at a terminal need is imported."""

import sys


def main() -> None:
    from gateway.cli import stdout

    stdout.prepare()
    arguments = sys.argv[1:]
    if arguments[:1] == ["run"] and not {"-h", "--help"} & set(arguments):
        from gateway.cli.run import command
    else:
        from gateway.cli.app import command
    from gateway.cli.failure import exit_code_of

    sys.exit(exit_code_of(command, arguments))
