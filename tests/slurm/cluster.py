"""A real Slurm on this machine while a command runs: two nodes, two partitions, accounting, on the loopback only.

usage: python tests/slurm/cluster.py COMMAND ...

Debian's packages are installed where they are missing, and everything lives in one folder of its own. Every daemon is a
child of this process and gets a signal from the kernel when it is gone, so nothing is left running however it ends.
COMMAND finds the cluster by SLURM_CONF. Where there can be no cluster, the reason is printed and the exit code is 0.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client", "slurmdbd", "slurm-wlm-mysql-plugin", "mariadb-server")
NODES, CPUS, MEMORY = 2, 4, 4000  # claimed by each node, whatever there is: the tests' jobs are small
_SET_PDEATHSIG = 1

# proctrack and task without cgroups, since there may be none here. cred_expire is also how long a requeued job waits
# before it starts again; KillWait how long a job has after SIGTERM. "high" preempts "main".
CONF = """\
ClusterName=robusteval
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={root}/state/ctld
SlurmdSpoolDir={root}/state/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2,batch_sched_delay=0,default_queue_depth=1000
KillWait=5
CompleteWait=0
MailProg=/bin/true
MaxArraySize=1001
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStoragePass={root}/munge/socket
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime=5 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""
NODE = (
    "NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory} Gres=gpu:1 "
    "State=UNKNOWN"
)
DBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
CommunicationParameters=NoInAddrAny
SlurmUser=root
PidFile={root}/run/slurmdbd.pid
LogFile={root}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageUser=root
StorageLoc=slurm_acct_db
"""


class NoCluster(Exception):
    """There can be no cluster here; the sentence says why."""


def main(command: Sequence[str]) -> int:
    """Bring the cluster up, run the command, take the cluster down; return the command's exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that the daemons are ended on the way out
    began = time.monotonic()
    try:
        install()
    except NoCluster as reason:
        print(f"cluster: skipped, {reason}")
        return 0
    with tempfile.TemporaryDirectory(prefix="robusteval-slurm-") as folder, cluster(Path(folder)) as conf:
        print(f"cluster: up after {time.monotonic() - began:.0f} s", flush=True)
        done = subprocess.run(command, env={**os.environ, "SLURM_CONF": str(conf)}, check=False)
    print("cluster: down")
    return done.returncode


def install() -> None:
    """Install the packages that are missing, without letting them start anything. Raises NoCluster where it cannot."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NoCluster("it takes root on Linux, since slurmd changes users")
    if not (shutil.which("apt-get") and shutil.which("dpkg-query")):
        raise NoCluster("the packages are Debian's, and here is no apt-get")
    missing = [name for name in PACKAGES if not _installed(name)]
    if not missing:
        return
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    try:
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        for step in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *missing]):
            done = subprocess.run(
                ["apt-get", *step],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise NoCluster(f"apt-get {step[0]} failed: {last}")
    finally:
        if ours:
            policy.unlink(missing_ok=True)


def _installed(name: str) -> bool:
    asked = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", name], capture_output=True, text=True, check=False)
    return "ok installed" in asked.stdout


@contextlib.contextmanager
def cluster(root: Path) -> Iterator[Path]:
    """Yield the slurm.conf of a cluster that is up, with all its files in ``root``; then end its daemons."""
    ports = _free_ports(NODES + 2)  # slurmctld's, slurmdbd's, and one for each node
    conf = _configure(root, ports)
    with contextlib.ExitStack() as daemons:

        def start(*command: str, user: str | None = None, environment: dict[str, str] | None = None) -> None:
            daemons.enter_context(_daemon(root, command, user, {"SLURM_CONF": str(conf), **(environment or {})}))

        start("munged", "--foreground", f"--socket={root}/munge/socket", f"--key-file={root}/munge/key",
              f"--pid-file={root}/munge/munged.pid", f"--log-file={root}/munge/munged.log",
              f"--seed-file={root}/munge/seed", user="munge")  # fmt: skip
        database = root / "database"
        _run("mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={database}", "--skip-test-db",
             "--auth-root-authentication-method=socket")  # fmt: skip
        start("mariadbd", "--no-defaults", f"--datadir={database}", f"--socket={root}/run/mysql.sock",
              f"--pid-file={root}/run/mysqld.pid", "--skip-networking", "--innodb-buffer-pool-size=64M",
              "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0", user="mysql")  # fmt: skip
        sql = "create database if not exists slurm_acct_db; create user if not exists root@localhost;"
        ask = ("mariadb", "--no-defaults", "-S", f"{root}/run/mysql.sock", "-e", sql)
        _until(lambda: _works(*ask), "the database", root)
        _until(lambda: _works("munge", "-S", f"{root}/munge/socket", "-n"), "munge", root)
        start("slurmdbd", "-D", environment={"MYSQL_UNIX_PORT": f"{root}/run/mysql.sock"})
        os.environ["SLURM_CONF"] = str(conf)
        _until(lambda: _works("sacctmgr", "-n", "list", "cluster"), "slurmdbd", root)
        _run("sacctmgr", "-i", "add", "cluster", "robusteval")
        start("slurmctld", "-D", "-c")
        for number in range(1, NODES + 1):
            start("slurmd", "-D", "-N", f"n{number}")
        _until(lambda: _works("srun", "-N", str(NODES), "-t", "1", "--immediate=5", "true"), "the nodes", root)
        try:
            yield conf
        finally:
            _works("scancel", "--user=root")
            with contextlib.suppress(TimeoutError):
                _until(lambda: not _said("squeue", "-h"), "the end of all jobs", root, seconds=20)


def _configure(root: Path, ports: Sequence[int]) -> Path:
    root.chmod(0o755)
    for name in ("run", "log", "state/ctld", "munge", "database"):
        (root / name).mkdir(parents=True)
    for name, user in (("munge", "munge"), ("database", "mysql"), ("run", "mysql")):
        shutil.chown(root / name, user, user)
    (root / "munge").chmod(0o711)
    key = root / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    shutil.chown(key, "munge", "munge")
    host = socket.gethostname().partition(".")[0]
    (root / "gpus").mkdir()
    lines = []
    for number in range(1, NODES + 1):
        # A null device stands for a GPU: Slurm hands it out, torch sees none.
        os.mknod(root / "gpus" / str(number), 0o600 | 0o020000, os.makedev(1, 3))
        lines.append(f"NodeName=n{number} Name=gpu File={root}/gpus/{number}")
    (root / "gres.conf").write_text("\n".join(lines) + "\n")
    nodes = "\n".join(
        NODE.format(n=number, host=host, port=ports[1 + number], cpus=CPUS, memory=MEMORY)
        for number in range(1, NODES + 1)
    )
    (root / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (root / "slurmdbd.conf").write_text(DBD_CONF.format(root=root, dbd_port=ports[1]))
    (root / "slurmdbd.conf").chmod(0o600)
    conf = root / "slurm.conf"
    conf.write_text(CONF.format(root=root, host=host, port=ports[0], dbd_port=ports[1], nodes=nodes))
    return conf


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def _daemon(root: Path, command: Sequence[str], user: str | None, environment: dict[str, str]) -> Iterator[None]:
    name = Path(command[0]).name
    with (root / "log" / f"{name}.out").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            env={**os.environ, **environment},
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_LIBC = ctypes.CDLL(None)


def _end_with_parent() -> None:
    _LIBC.prctl(_SET_PDEATHSIG, signal.SIGTERM)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _works(*command: str) -> bool:
    try:
        return not subprocess.run(command, capture_output=True, check=False, timeout=30).returncode
    except subprocess.TimeoutExpired:
        return False


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()


def _until(holds: Callable[[], bool], what: str, root: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            files = sorted((root / "log").iterdir())
            logs = "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in files)
            raise TimeoutError(f"waited {seconds:.0f} s for {what}\n{logs}")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
