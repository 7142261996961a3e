"""Entry point of the command `pretrain`. Workers import it too, so it is light.

A command that builds a corpus starts the server of its workers before anything else, since that takes longest to get
ready. Whether the recipe wants workers of this machine is guessed here; a wrong guess costs time alone.
"""

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

_NO_WORKERS = re.compile(rb"type\W+(slurm|ray)\b|workers\W+1\b")


def main() -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed by the caller: the next file opened would take its number
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them takes 20 ms
    if _wants_workers(sys.argv[1:]):
        from pipeline.workers import start_server

        start_server()
    from cli.commands import run_command

    run_command()


def _wants_workers(arguments: list[str]) -> bool:
    if arguments[:1] not in (["corpus"], ["run"]) or not {"-h", "--help"}.isdisjoint(arguments):
        return False
    with suppress(OSError):
        for path in map(Path, arguments[1:]):
            if path.is_file():
                with path.open("rb") as recipe:
                    text = recipe.read(100_000) + " ".join(arguments).encode("utf-8", "replace")
                return not _NO_WORKERS.search(text)
    return False


if __name__ == "__main__":
    main()
