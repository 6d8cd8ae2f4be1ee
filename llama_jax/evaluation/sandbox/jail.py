"""Runs one Python program under the limits and kernel layers it is told on stdin; a script of its own, started by sandbox.py.

Layers that it is asked for and cannot set up end it with "refused", so that nothing runs with less than was asked for.
With namespaces three processes stand in a row: this one, the init of the new process namespace, and the program.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)

NEW_NAMESPACES = 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
"""Mounts, processes, network, System V IPC, host name (CLONE_NEW* of sched.h)."""
NEW_USER = 0x10000000
NOSUID, NODEV, BIND, RECURSIVE, PRIVATE, DETACH = 2, 4, 4096, 16384, 1 << 18, 2

UNPRIVILEGED = 2_000_000_000
"""Root gives way to this user id plus the process id: nobody's, so that limits by user count this program alone."""

WORK = "/llama_jax_program"
"""The program's folder inside; no name that a Python installation or a checkout might lie under."""

EPERM, ENOSYS = 1, 38
SYSTEM_CALLS = {
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
"""By machine: audit number, calls that are refused, calls that depend on their first argument."""
NEW_CALLS = {"pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434}
"""Refused too; calls this young have one number everywhere."""
CLONE3 = 435


class Refused(Exception):
    """A layer cannot be set up here."""


def check(value: int, what: str) -> int:
    """A libc result, or Refused with errno's sentence."""
    if value < 0:
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")
    return value


def die_with_parent() -> None:
    """SIGKILL when the process that waits for this one ends, however it ends."""
    if sys.platform == "linux":
        LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def limit(limits: dict, counted: bool) -> None:
    """Soft and hard limits of this process; they survive whatever it becomes."""
    for name, value in {"RLIMIT_CPU": limits["cpu_seconds"], "RLIMIT_AS": limits["memory_bytes"],
                        "RLIMIT_FSIZE": limits["file_bytes"], "RLIMIT_NPROC": limits["threads"], "RLIMIT_NOFILE": 64,
                        "RLIMIT_CORE": 0, "RLIMIT_MEMLOCK": 0, "RLIMIT_MSGQUEUE": 0}.items():
        if hasattr(resource, name) and (name != "RLIMIT_NPROC" or counted):  # else it would count what the user runs besides
            number = getattr(resource, name)
            most = resource.getrlimit(number)[1]
            hard = value + (name == "RLIMIT_CPU")  # SIGXCPU at the soft limit tells why, SIGKILL follows
            resource.setrlimit(number, (value, hard) if most == resource.RLIM_INFINITY else (min(value, most), min(hard, most)))


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    texts = [text.encode() if text is not None else None for text in (source, target, kind, options)]
    check(LIBC.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def bind(source: str, target: str) -> None:
    """Show `source` at `target`, read-only; devices stay usable."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "w").close()
    mount(source, target, None, BIND | RECURSIVE)
    attributes = struct.pack("QQQQ", 1 | 2 | (0 if source.startswith("/dev/") else 4), 0, 0, 0)  # read-only, nosuid, nodev
    check(LIBC.syscall(442, -100, target.encode(), 0x8000, attributes, len(attributes)), f"mount_setattr {target}")


def enter_namespaces() -> None:
    """New namespaces for the children of this process; who is not root becomes the owner of a user namespace first."""
    user, group = os.geteuid(), os.getegid()
    check(LIBC.unshare(NEW_NAMESPACES | (NEW_USER if user else 0)), "unshare")
    if user:
        for name, text in {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}.items():
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def enter_root(folder: str, readable: list[str], size: int) -> None:
    """A file system with `readable`, read-only, and an empty WORK of `size` bytes in memory; nothing else is there."""
    mount(None, "/", None, RECURSIVE | PRIVATE)
    mount("tmpfs", folder, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for path in readable:
        bind(path, folder + path)
    os.mkdir(folder + WORK)
    os.chdir(folder)
    check(LIBC.syscall({"x86_64": 155, "aarch64": 41}[os.uname().machine], b".", b"."), "pivot_root")
    check(LIBC.umount2(b".", DETACH), "umount")
    check(LIBC.syscall(442, -100, b"/", 0, struct.pack("QQQQ", 1, 0, 0, 0), 32), "mount_setattr /")
    mount("tmpfs", WORK, "tmpfs", NOSUID | NODEV, f"size={size},nr_inodes=4096,mode=777")
    os.chdir(WORK)


def drop_user() -> None:
    """Root becomes a user who owns nothing but the working directory."""
    for user in (UNPRIVILEGED + os.getpid(), 65534):  # a user namespace around us may not know the large one
        try:
            os.chown(".", user, user)
            os.setgroups([])
            os.setresgid(user, user, user)
            return os.setresuid(user, user, user)
        except OSError as error:
            reason = str(error)
    raise Refused(f"setuid: {reason}")


def drop_capabilities() -> None:
    """Nothing that this process starts gets more rights than it has, and it has none."""
    check(LIBC.prctl(38, 1, 0, 0, 0), "no_new_privs")
    check(LIBC.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0] * 6)), "capset")


def landlock(folder: str, readable: list[str]) -> None:
    """Files: `readable` to read, `folder` to do anything in; and no TCP, where the kernel knows how (landlock(7))."""
    version = check(LIBC.syscall(444, None, 0, 1), "landlock")
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    handled = struct.pack("QQQ", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    rules = check(LIBC.syscall(444, handled, (8, 8, 8, 8, 16, 16, 24)[min(version, 6)], 0), "landlock")
    for path in [folder, *readable]:
        allowed = files if path == folder else (1 | 4 | 8 if os.path.isdir(path) else 2 | 4)  # run, read, list; devices: write
        place = os.open(path, os.O_PATH)
        check(LIBC.syscall(445, rules, 1, struct.pack("=Qi", allowed, place), 0), f"landlock {path}")
        os.close(place)
    check(LIBC.syscall(446, rules, 0), "landlock")
    os.close(rules)


def filter_calls() -> None:
    """No sockets, no new processes, no signals to others, no ways around these: seccomp(2), a program in classic BPF."""
    if os.uname().machine not in SYSTEM_CALLS:
        raise Refused(f"no table of system calls for {os.uname().machine}")
    audit, refused, depends = SYSTEM_CALLS[os.uname().machine]
    load, equal, at_least, has_bits, end = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, no = 0x7FFF0000, 0x80000000, 0x00050000
    code = [(load, 0, 0, 4), (equal, 1, 0, audit), (end, 0, 0, kill), (load, 0, 0, 0),
            (at_least, 0, 1, 0x40000000), (end, 0, 0, no | EPERM), (equal, 0, 1, CLONE3), (end, 0, 0, no | ENOSYS)]
    for number in [*refused.values(), *NEW_CALLS.values()]:
        code += [(equal, 0, 1, number), (end, 0, 0, no | EPERM)]
    own = os.getpid()  # signals to itself, threads, and its own limits
    for name, test, value in ("kill", equal, own), ("tgkill", equal, own), ("clone", has_bits, 0x10000), ("prlimit64", equal, 0):
        code += [(equal, 0, 4, depends[name]), (load, 0, 0, 16), (test, 1, 0, value), (end, 0, 0, no | EPERM), (end, 0, 0, allow)]
    code.append((end, 0, 0, allow))
    rules = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    check(LIBC.prctl(22, 2, struct.pack("HxxxxxxQ", len(code), ctypes.addressof(rules)), 0, 0), "seccomp")


def fork_and_wait() -> None:
    """Return in a child; this process only waits for it and leaves with its status (128 + n for signal n)."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    die_with_parent()


def confine(order: dict) -> None:
    """Set up everything that was asked for, from the outside in."""
    layers, folder = order["layers"], os.getcwd()
    if "namespaces" in layers:
        enter_namespaces()
        fork_and_wait()
        enter_root(folder, order["readable"], order["limits"]["file_bytes"])
        folder = WORK
        fork_and_wait()
    limit(order["limits"], order["counted"])
    if "user" in layers:
        drop_user()
    if sys.platform == "linux":
        drop_capabilities()
        die_with_parent()  # a change of user forgets it
    if "landlock" in layers:
        landlock(folder, order["readable"])
    if "seccomp" in layers:
        filter_calls()


def run(program: str) -> str:
    """What became of the program, in the words of OpenAI's human-eval."""
    try:
        exec(compile(program, "<program>", "exec"), {})
        return "passed"
    except BaseException as error:  # SystemExit too: the tests did not get to their end
        try:
            return f"failed: {type(error).__name__}: {error}"[:1000]
        except BaseException:
            return f"failed: {type(error).__name__}"


def main() -> None:
    """Read the order, confine, say "started", run, say what came of it."""
    order = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    die_with_parent()
    if os.getppid() != order["parent"]:
        os._exit(1)
    try:
        confine(order)
    except (Refused, OSError, ValueError) as error:
        os.write(order["answer"], f"refused: {error}".encode())
        os._exit(1)
    os.write(order["answer"], b"started\n")
    verdict = run(order["program"])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os.write(order["answer"], verdict.encode(errors="replace"))
        os._exit(0)


if __name__ == "__main__":
    main()
