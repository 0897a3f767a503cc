"""Numbers of the system calls that a checker's process may not make.

From the kernel's `unistd_64.h` and `asm-generic/unistd.h`, which never change a number.
"""

from collections.abc import Mapping

Numbers = tuple[int | None, int | None]
"""A call's numbers on x86_64 and on aarch64; None if the latter never had it."""

ENDING: Mapping[str, Numbers] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "setns": (308, 268),
    "keyctl": (250, 219),
    "add_key": (248, 217),
}
"""The process ends: sockets, programs, signals, others' memory, kernel interfaces."""

REFUSED: Mapping[str, Numbers] = {
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "creat": (85, None),
    "link": (86, None),
    "linkat": (265, 37),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "utimensat": (280, 88),
    "futimesat": (261, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "tgkill": (234, 131),
    "fchmodat2": (452, 452),
}
"""Refused with EPERM: changes of files, limits and namespaces."""

UNKNOWN: Mapping[str, Numbers] = {
    "clone3": (435, 435),
    "openat2": (437, 437),
}
"""Answered as if the kernel lacked them: they hide their flags in memory, and callers fall back
to the older calls."""

OPENING: Mapping[str, Numbers] = {
    "open": (2, None),
    "openat": (257, 56),
}
"""Refused if they open a file for writing. Flags are argument 1 of the first, 2 of the second."""

CLONE: Numbers = (56, 220)
"""Ends the process unless it starts a thread."""
