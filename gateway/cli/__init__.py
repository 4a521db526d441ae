"""The command `tidegate`. `run` is dispatched before anything that only people at a terminal need is imported."""

import io
import sys


def main() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Devices choose names and content, the locale may lack their letters. Standard error is so from the start.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:]
    if arguments[:1] == ["run"] and not {"-h", "--help"} & set(arguments):
        from gateway.cli.run import command
    else:
        from gateway.cli.app import command
    from gateway.cli.failure import exit_code_of

    sys.exit(exit_code_of(command, arguments))
