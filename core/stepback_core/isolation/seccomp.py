"""A filter of system calls for the process of one call: no network, processes or changed files."""

import ctypes
import os
import struct
from collections.abc import Iterable, Mapping

from stepback_core.isolation.syscalls import CLONE, ENDING, OPENING, REFUSED, UNKNOWN, Numbers

_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Processors by the numbers that `linux/audit.h` gives them, in the order of `Numbers`."""
_X32 = 0x40000000
"""Set in the numbers of a second set of calls on x86_64."""
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_LOAD, _IS, _HAS_ANY, _IS_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
"""Instructions of a classic BPF program (`linux/bpf_common.h`)."""
_SET_SECCOMP, _MODE_FILTER, _SET_NO_NEW_PRIVILEGES = 22, 2, 38
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Places in what the program reads (`struct seccomp_data`)."""
_THREAD = 0x10000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class SystemCallFilter:
    """A filter for this machine. A process that has put it on cannot take it off."""

    def __init__(self) -> None:
        machine = os.uname().machine
        self._code = _assemble(machine) if machine in _MACHINES else b""
        self._buffer = ctypes.create_string_buffer(self._code)
        address = ctypes.cast(self._buffer, ctypes.c_void_p).value
        self._program = _Program(len(self._code) // 8, address)
        self.libc = ctypes.CDLL(None, use_errno=True)

    def put_on(self) -> bool:
        """Filter this process; False if the kernel does not, or the processor is not known."""
        if not self._code or self.libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            return False
        program = ctypes.byref(self._program)
        return self.libc.prctl(_SET_SECCOMP, _MODE_FILTER, program, 0, 0) == 0


def _assemble(machine: str) -> bytes:
    column = [*_MACHINES].index(machine)
    code = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_IS, _MACHINES[machine], 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        code += [_instruction(_IS_AT_LEAST, _X32, 0, 1), _instruction(_RETURN, _KILL)]
    for calls, action in ((ENDING, _KILL), (REFUSED, _EPERM), (UNKNOWN, _ENOSYS)):
        for number in _numbers(calls, column):
            code += [_instruction(_IS, number, 0, 1), _instruction(_RETURN, action)]
    for number in _numbers({"clone": CLONE}, column):
        code += _by_flags(number, 0, _THREAD, having=_ALLOW, lacking=_KILL)
    for place, name in enumerate(OPENING, start=1):
        for number in _numbers({name: OPENING[name]}, column):
            code += _by_flags(number, place, _WRITING, having=_EPERM, lacking=_ALLOW)
    return b"".join([*code, _instruction(_RETURN, _ALLOW)])


def _numbers(calls: Mapping[str, Numbers], column: int) -> Iterable[int]:
    return (number for each in calls.values() if (number := each[column]) is not None)


def _by_flags(number: int, place: int, flags: int, *, having: int, lacking: int) -> list[bytes]:
    """Decide one call by an argument's low half; any other call goes on after this."""
    return [
        _instruction(_IS, number, 0, 4),
        _instruction(_LOAD, _ARGUMENTS + 8 * place),
        _instruction(_HAS_ANY, flags, 0, 1),
        _instruction(_RETURN, having),
        _instruction(_RETURN, lacking),
    ]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
