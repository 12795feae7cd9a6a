"""A real Apache Kafka on this machine: one KRaft node on the JVM, from plain jars, on a data folder that survives `kill -9`.

`script/setup` resolves the jars; no Kafka distribution and no container engine is needed. The JVM runs in a session of its own and,
when tied, dies with the process that started it, however that one ends: a shell holds the read end of a pipe and kills the JVM's
group when the pipe closes. Only the standard library is used, so that `script/kafka` runs the same code.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

from tests.support.wire import NotServing, check_serving

ROOT = Path(__file__).parents[2]
LIBS = ROOT / ".cache" / "kafka" / "libs"
#: Records of 8 MB, with room for keys and headers (the topics' own limit stands in the topic map).
MAX_RECORD = 9 * 1024 * 1024
START_TIMEOUT = 60.0

_JVM = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


class KafkaMissing(Exception):
    """No real Kafka can be had here; the text says what would help."""


class KafkaFailed(Exception):
    """The broker did not come up, or not in time; the text carries the end of its log."""


def find_java() -> str:
    """The `java` to use: JAVA_HOME's, else that of PATH."""
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").exists():
        return str(Path(home) / "bin" / "java")
    if found := shutil.which("java"):
        return found
    raise KafkaMissing("no Java: install a JRE of 17 or newer, then run script/setup")


def find_libs() -> Path:
    if not any(LIBS.glob("kafka_*.jar")):
        raise KafkaMissing("Kafka's jars are not here: run script/setup where Java 17 and Maven are installed")
    return LIBS


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def properties(port: int, controller_port: int, log_dir: str, *, host: str = "127.0.0.1", advertised: int | None = None) -> dict[str, str]:
    """server.properties of a single node that plays broker and controller. `advertised` is the port that clients are told."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{advertised or port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": log_dir,
        # Topics are made on purpose, by the topic map; a mistyped name must fail.
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(MAX_RECORD),
        "replica.fetch.max.bytes": str(MAX_RECORD),
        # A topic's retention is the topic map's business; nothing may vanish because a test ran long.
        "log.retention.ms": "-1",
        "unclean.leader.election.enable": "false",
        # After kill -9 the controller admits the new broker only when the old one's session is over (default 9 s).
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # One node: what is replicated three times in production is here once.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # A small machine: the defaults want 128 MB for the cleaner alone.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        "log.index.size.max.bytes": str(1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
    }


class Broker:
    """One broker on `folder`. Blocking; in asynchronous tests call `start`, `stop` and `restart` through `asyncio.to_thread`.

    The ports are kept over `kill` and `restart`, and so is the data. `tied` brokers end with this process. With `advertised`, clients
    are sent to that port after their first question: where a fault proxy stands in front.
    """

    def __init__(self, folder: Path, port: int | None = None, *, advertised: int | None = None, tied: bool = True) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._advertised = advertised
        self._controller_port = free_port()
        self._tied = tied
        self._java = find_java()
        self._libs = find_libs()
        self._jvm: subprocess.Popen[bytes] | None = None
        self._reaper: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "kafka.log"

    @property
    def pid(self) -> int:
        assert self._jvm is not None, "the broker was never started"
        return self._jvm.pid

    @property
    def running(self) -> bool:
        return self._jvm is not None and self._jvm.poll() is None

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Formats the folder where it is new, starts the JVM, waits until it serves. Raises KafkaFailed."""
        if self.running:
            return
        self._configure()
        with self.log.open("ab") as log:
            self._jvm = subprocess.Popen(
                [*self._command("kafka.Kafka"), str(self._properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        (self.folder / "kafka.pid").write_text(f"{self.pid} {self.port}\n")
        if self._tied:
            self._tie()
        try:
            self._wait(timeout)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout: float = 30.0) -> None:
        """SIGTERM, and after `timeout` SIGKILL."""
        if self._jvm is not None:
            with contextlib.suppress(ProcessLookupError):
                self._jvm.send_signal(signal.SIGTERM)
            try:
                self._jvm.wait(timeout)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._jvm.wait()
            self._untie()

    def kill(self) -> None:
        """SIGKILL, as a power cut would end it; what it acknowledged is in the folder."""
        if self._jvm is not None:
            self._signal(signal.SIGKILL)
            self._jvm.wait()
            self._untie()

    def restart(self, timeout: float = START_TIMEOUT) -> None:
        """Serves again, on the same port and data; kills first where it still runs."""
        self.kill()
        self.start(timeout)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends it for good; the folder stays for whoever looks into a failure."""
        self.kill()

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _command(self, main: str) -> list[str]:
        return [self._java, *_JVM, "-cp", f"{self._libs}/*", main]

    def _configure(self) -> None:
        data = self.folder / "data"
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = properties(self.port, self._controller_port, str(data), advertised=self._advertised)
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        if (data / "meta.properties").exists():
            return
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if cluster.startswith("-"):
            cluster = "A" + cluster[1:]  # the tool would read it as an option
        done = subprocess.run(
            [*self._command("kafka.tools.StorageTool"), "format", "-t", cluster, "-c", str(self._properties)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise KafkaFailed(f"the data folder cannot be formatted: {(done.stderr or done.stdout).strip()[-2000:]}")

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            if not self.running:
                raise KafkaFailed(f"Kafka ended by itself ({self.log}):\n{self._tail()}")
            try:
                check_serving("127.0.0.1", self.port)
            except NotServing as reason:
                if time.monotonic() > deadline:
                    raise KafkaFailed(f"Kafka does not serve after {timeout:.0f} s: {reason} ({self.log}):\n{self._tail()}") from None
                time.sleep(0.1)
            else:
                return

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def _signal(self, number: int) -> None:
        assert self._jvm is not None
        if self._jvm.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._jvm.pid, number)

    def _tie(self) -> None:
        self._reaper = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$1"', "reaper", str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _untie(self) -> None:
        if self._reaper is not None:
            self._reaper.kill()
            self._reaper.communicate()
            self._reaper = None
