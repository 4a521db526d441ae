"""Which outcomes of the conditional jumps of some modules a call took: exact, of every condition, and slow.

A branch is (code object, jump, where it went). Handlers of `except` count too: what is caught is a condition.
"""

import dis
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

Branch = tuple[CodeType, int, int]
Place = tuple[str, int, int, int]
"""A branch in words that another process understands: function, its first line, jump, end."""

ROOT = Path(__file__).parents[2]
_PREFIX = dis.opmap["EXTENDED_ARG"]


class Branches:
    """`all` are those that there are, `taken` those that calls took; `steps` is the work of the last call, in bytecodes."""

    def __init__(self, modules: Iterable[ModuleType]) -> None:
        self._jumps: dict[CodeType, dict[int, int]] = {}
        self.all: set[Branch] = set()
        self.taken: set[Branch] = set()
        self.steps = 0
        for module in modules:
            assert module.__file__ is not None
            with open(module.__file__) as file:
                source = file.read()
            self._files_codes(compile(source, module.__file__, "exec"))

    def _files_codes(self, code: CodeType) -> None:
        """Code objects compare by their content, so those compiled here stand for those that run."""
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._jumps[constant] = _jumps(constant)
                self.all |= {(constant, *ends) for ends in _ends(constant)}
                self._files_codes(constant)

    def trace(self, call: Callable[[], Any]) -> bool:
        """Whether it took a branch that none took before. What it raises passes."""
        before = len(self.taken)
        self.steps = 0
        sys.settrace(self._enter)
        try:
            call()
        finally:
            sys.settrace(None)
        return len(self.taken) > before

    def by_file(self) -> dict[str, tuple[set[Place], int]]:
        """Of each file those taken, and how many there are."""
        found: dict[str, tuple[set[Place], int]] = {}
        for branch in self.all:
            file = str(Path(branch[0].co_filename).relative_to(ROOT))
            taken, count = found.get(file, (set(), 0))
            if branch in self.taken:
                taken.add((branch[0].co_qualname, branch[0].co_firstlineno, *branch[1:]))
            found[file] = taken, count + 1
        return found

    def _enter(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        code = frame.f_code
        jumps = self._jumps.get(code)
        if jumps is None:
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        pending = -1

        def step(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
            nonlocal pending
            if event == "opcode":
                self.steps += 1
                at = frame.f_lasti
                if pending >= 0:
                    self.taken.add((code, pending, at))
                pending = jumps.get(at, -1)
            return step

        return step


def joined(runs: Iterable[Mapping[str, tuple[set[Place], int]]]) -> dict[str, tuple[int, int]]:
    """Of each file how many branches were taken by any run, and how many there are."""
    taken: dict[str, set[Place]] = defaultdict(set)
    counts: dict[str, int] = {}
    for run in runs:
        for file, (places, count) in run.items():
            taken[file] |= places
            counts[file] = count
    return {file: (len(taken[file]), counts[file]) for file in sorted(counts)}


def _jumps(code: CodeType) -> dict[int, int]:
    """Offsets at which a conditional jump is seen, its own or that of its prefix, and the jump."""
    found: dict[int, int] = {}
    prefixes: list[int] = []
    for instruction in dis.get_instructions(code):
        if instruction.opcode == _PREFIX:
            prefixes.append(instruction.offset)
            continue
        if _is_conditional(instruction.opname):
            found |= dict.fromkeys((*prefixes, instruction.offset), instruction.offset)
        prefixes = []
    return found


def _ends(code: CodeType) -> Iterable[tuple[int, int]]:
    jump = None
    for instruction in dis.get_instructions(code):
        if jump is not None:
            yield jump, instruction.offset
            jump = None
        if _is_conditional(instruction.opname):
            jump = instruction.offset
            yield jump, int(instruction.argval)


def _is_conditional(name: str) -> bool:
    return ("JUMP_" in name and "_IF_" in name) or name == "FOR_ITER"
