"""The config.json of one container (OCI runtime specification), and which system calls are allowed in it. All pure.

Our container is confined like one of Docker's: a new namespace of each kind except user and time, its own root through
pivot_root, a memory cgroup, a system call filter, no new privileges. Unlike Docker's, it has no capability at all.
"""

import msgspec

from kickwatch.workload.engine import ContainerSpec

PROGRAM = "/workload"
_SPECIFICATION = "1.0.2"
_ENOSYS = 38
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_INERT = ("nosuid", "noexec", "nodev")  # mount options: no privileges, programs or devices

# The system calls of ordinary programs. Left out on purpose: mounts, namespaces, modules, BPF, perf, keys, clocks,
# ptrace, swap, reboot, io_uring, userfaultfd. A runtime skips names that its libseccomp or the architecture lacks.
_FILES = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 getcwd
getdents getdents64 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32
lgetxattr link linkat listxattr llistxattr lremovexattr lseek _llseek lsetxattr lstat lstat64 mkdir mkdirat mknod
mknodat newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv removexattr rename renameat renameat2 rmdir sendfile sendfile64 setxattr splice stat stat64 statfs
statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime
utimensat utimensat_time64 utimes vmsplice write writev
"""
_MEMORY = """
brk madvise membarrier memfd_create mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap msync munlock munlockall
munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages shmat shmctl shmdt shmget
"""
_EVENTS = """
epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 futex futex_time64
futex_waitv _newselect pause pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 restart_syscall select
signalfd signalfd4
"""
_TIME = """
alarm clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer
gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times
"""
_PROCESSES = """
arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getegid getegid32
geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getrandom getresgid
getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 kill pidfd_open
pidfd_send_signal prctl prlimit64 rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
sched_setattr sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address
setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32
setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sigaltstack sigreturn
sysinfo tgkill tkill ugetrlimit uname vfork wait4 waitid waitpid
"""
_NETWORK_AND_IPC = """
accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd recv recvfrom recvmmsg recvmsg semctl semget semop semtimedop send
sendmmsg sendmsg sendto setsockopt shutdown socket socketcall socketpair
"""
_ALLOWED_SYSCALLS = tuple(" ".join((_FILES, _MEMORY, _EVENTS, _TIME, _PROCESSES, _NETWORK_AND_IPC)).split())

_MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
_READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")


class BundleHost(msgspec.Struct, frozen=True):
    """The node's part of a bundle: the paths of the image, and what the kernel and the runtime support."""

    rootfs: str
    program: str
    cgroup_namespace: bool
    seccomp: bool


class BundleMount(msgspec.Struct, frozen=True):
    """One entry of `mounts`."""

    destination: str
    type: str
    source: str
    options: tuple[str, ...]


def bundle_config(spec: ContainerSpec, host: BundleHost) -> dict[str, object]:
    """The contents of config.json for one container of ours."""
    return {
        "ociVersion": _SPECIFICATION,
        "hostname": "kickwatch",
        "annotations": spec.labels(),
        "root": {"path": host.rootfs, "readonly": True},
        "process": _process(spec),
        "mounts": [msgspec.to_builtins(mount) for mount in mounts(host.program)],
        "linux": _linux(spec, host),
    }


def _process(spec: ContainerSpec) -> dict[str, object]:
    kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": [PROGRAM, *spec.command],
        "env": ["PATH=/"],
        "cwd": "/",
        "capabilities": {kind: [] for kind in kinds},
        "noNewPrivileges": True,
    }


def mounts(program: str) -> tuple[BundleMount, ...]:
    """What Docker mounts, and our program on top of an empty file in the shared root.

    The bind mount is `exec` in the container only; the image lies in /run, which is `noexec` on many nodes.
    """
    return (
        BundleMount("/proc", "proc", "proc", _INERT),
        BundleMount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=64k")),
        BundleMount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")),
        BundleMount("/dev/shm", "tmpfs", "shm", (*_INERT, "mode=1777", "size=4m")),  # noqa: S108 -- the container's own
        BundleMount("/dev/mqueue", "mqueue", "mqueue", _INERT),
        BundleMount("/sys", "sysfs", "sysfs", (*_INERT, "ro")),
        BundleMount("/sys/fs/cgroup", "cgroup", "cgroup", (*_INERT, "relatime", "ro")),
        BundleMount(PROGRAM, "bind", program, ("bind", "ro", "nosuid", "nodev", "exec")),
    )


def _linux(spec: ContainerSpec, host: BundleHost) -> dict[str, object]:
    names = (*_NAMESPACES, "cgroup") if host.cgroup_namespace else _NAMESPACES
    resources: dict[str, object] = {"devices": [{"allow": False, "access": "rwm"}]}
    if spec.pids_limit:
        resources["pids"] = {"limit": spec.pids_limit}
    linux: dict[str, object] = {
        "namespaces": [{"type": name} for name in names],
        "cgroupsPath": f"{spec.cgroup_parent}/{spec.name}",
        "resources": resources,
        "maskedPaths": _MASKED_PATHS,
        "readonlyPaths": _READ_ONLY_PATHS,
    }
    return linux | ({"seccomp": seccomp()} if host.seccomp else {})


def seccomp() -> dict[str, object]:
    """An allow list for the node's own architecture: other calls fail with EPERM, and no namespace can be made.

    A filter cannot see the flags of clone3, so clone3 fails with ENOSYS and C libraries fall back to clone.
    """
    no_namespace = {"index": 0, "value": _NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": _ALLOWED_SYSCALLS, "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [no_namespace]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        ],
    }
