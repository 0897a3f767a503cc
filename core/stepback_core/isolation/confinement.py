"""Limits of the process of one call, which the kernel and Python enforce."""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from stepback_core.isolation.seccomp import SystemCallFilter

_NOBODY = 65534
_NEW_NETWORK, _NEW_USER, _NEW_MOUNTS = 0x40000000, 0x10000000, 0x00020000
_PRIVATE_BELOW, _READ_ONLY = 0x44000, 1
_PARENT_DEATH_SIGNAL = 1
_OPEN_FILES = 256
_ENDING = (
    "socket.",
    "subprocess.",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.kill",
    "pty.",
    "signal.pthread_kill",
)
"""Audit events that end the process: nothing in a checker needs them, and the text may be at it."""
_REFUSED = (
    "ctypes.",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "os.utime",
    "resource.",
    "shutil.",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_KERNEL_FILES = ("/proc", "/sys")
"""Files that show other processes of the same user, and the secrets in their environment."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """The means that hold on this machine. Made once in the worker, used in each fork."""

    seconds: float
    limits: dict[int, int]
    """Kernel limits, by the numbers of `resource`."""
    calls: SystemCallFilter
    has_own_network: bool
    hides_kernel_files: bool
    drops_root: bool
    has_call_filter: bool

    @classmethod
    def prepare(cls, memory_bytes: int, seconds: float) -> "Confinement":
        """Shut the worker out of the network, and find out what else a fork can give up.

        `memory_bytes` are what a call may map in addition to what a loaded worker has.
        """
        resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _be_the_first_to_go()
        calls = SystemCallFilter()
        has_own_network = _leave_network()
        limits = {
            resource.RLIMIT_AS: _mapped_bytes() + memory_bytes,
            resource.RLIMIT_CPU: int(seconds) + 1,
            resource.RLIMIT_FSIZE: 0,
            # No bound on root, which the filter and the hook hold.
            resource.RLIMIT_NPROC: 0,
        }
        return cls(
            seconds,
            limits,
            calls,
            has_own_network,
            _hide_kernel_files(),
            _can_be_nobody(),
            _can_filter(calls),
        )

    @property
    def means(self) -> list[str]:
        """Names of what holds, for the log."""
        optional = {
            "network namespace": self.has_own_network,
            "no /proc": self.hides_kernel_files,
            "system call filter": self.has_call_filter,
            "user nobody": self.drops_root,
        }
        return ["limits", "audit hook", *(name for name, holds in optional.items() if holds)]

    def enter(self, forbid: Callable[[str], None]) -> None:
        """Confine this process. `forbid` is called with what it tried, and ends it."""
        self.calls.libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        for limit, value in self.limits.items():
            resource.setrlimit(limit, (value, value))
        if self.drops_root:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        if self.has_call_filter:
            self.calls.put_on()
        sys.addaudithook(_hook(forbid))


def _mapped_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _be_the_first_to_go() -> None:
    """Let the kernel end this worker and its forks, should memory run out."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def _hide_kernel_files() -> bool:
    """Cover /proc and /sys, in which others' environment can be read; needs what namespaces do."""
    libc = ctypes.CDLL(None)
    if libc.unshare(_NEW_MOUNTS) or libc.mount(None, b"/", None, _PRIVATE_BELOW, None):
        return False
    return all(
        libc.mount(b"tmpfs", place.encode(), b"tmpfs", _READ_ONLY, None) == 0
        for place in _KERNEL_FILES
    )


def _leave_network() -> bool:
    """Move into a network without devices; needs root, or user namespaces."""
    libc = ctypes.CDLL(None)
    return libc.unshare(_NEW_NETWORK) == 0 or libc.unshare(_NEW_USER | _NEW_NETWORK) == 0


def _can_be_nobody() -> bool:
    """True if this is root, and the user `nobody` can read what a late import may need."""
    places = [place for place in (sys.executable, *sys.path) if place and os.path.exists(place)]
    if os.geteuid() != 0:
        return False
    try:
        os.seteuid(_NOBODY)
    except OSError:
        return False
    try:
        return all(os.access(place, os.R_OK, effective_ids=True) for place in places)
    finally:
        os.seteuid(0)


def _can_filter(calls: SystemCallFilter) -> bool:
    """Try the filter in a fork of its own."""
    child = os.fork()
    if child == 0:
        os._exit(0 if calls.put_on() else 1)
    return os.waitpid(child, 0)[1] == 0


def _hook(forbid: Callable[[str], None]) -> Callable[[str, tuple[object, ...]], None]:
    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(_ENDING):
            forbid(event)
        elif event.startswith(_REFUSED) or (event == "open" and _is_out_of_bounds(*arguments)):
            raise PermissionError(f"a checker may not do this: {event}")

    return hook


def _is_out_of_bounds(path: object, mode: object, flags: object) -> bool:
    if isinstance(flags, int) and flags & _WRITING:
        return True
    if not isinstance(path, (str, bytes)):
        return False
    place = os.path.realpath(os.fsdecode(path))
    return place.startswith(_KERNEL_FILES)
