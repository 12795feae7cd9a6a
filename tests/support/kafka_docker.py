"""The same broker in a container, for a machine with a container engine and without Java.

It answers the same calls as `tests.support.kafka.Broker`. `kill` is `docker kill`, which is SIGKILL; data stay in the container
until `close`.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time

from tests.support.kafka import START_TIMEOUT, KafkaFailed, KafkaMissing, free_port, properties
from tests.support.wire import NotServing, check_serving

IMAGE = "apache/kafka:4.1.0"


def find_engine() -> str:
    """The `docker` of an engine that answers."""
    docker = shutil.which("docker")
    if docker is None:
        raise KafkaMissing("no container engine")
    try:
        answer = subprocess.run([docker, "version", "--format", "{{.Server.Version}}"], capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        raise KafkaMissing("the container engine does not answer") from None
    if answer.returncode:
        raise KafkaMissing("the container engine does not run")
    return docker


def run_command(docker: str, name: str, port: int, controller_port: int) -> list[str]:
    """`docker run` for one node that is reached as 127.0.0.1:port. The image reads server.properties from its environment."""
    settings = properties(port, controller_port, "/var/lib/kafka/data", host="0.0.0.0")
    environment = [f"KAFKA_{key.replace('.', '_').upper()}={value}" for key, value in settings.items()]
    environment += ["KAFKA_HEAP_OPTS=-Xms128m -Xmx512m"]
    pairs = [part for value in environment for part in ("--env", value)]
    return [docker, "run", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:{port}", *pairs, IMAGE]


class DockerBroker:
    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._name = f"portcullis-test-{secrets.token_hex(4)}"
        self._docker = find_engine()
        self._made = False

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, timeout: float = START_TIMEOUT) -> None:
        if self._made:
            self._call("start", self._name)
        else:
            self._run(run_command(self._docker, self._name, self.port, free_port()))
            self._made = True
        self._wait(timeout)

    def stop(self, timeout: float = 30.0) -> None:
        self._call("stop", "--time", str(int(timeout)), self._name)

    def kill(self) -> None:
        self._call("kill", self._name, check=False)

    def restart(self, timeout: float = START_TIMEOUT) -> None:
        self.kill()
        self.start(timeout)

    def freeze(self) -> None:
        self._call("pause", self._name)

    def thaw(self) -> None:
        self._call("unpause", self._name)

    def close(self) -> None:
        self._call("rm", "--force", "--volumes", self._name, check=False)

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                check_serving("127.0.0.1", self.port)
            except NotServing as reason:
                if time.monotonic() > deadline:
                    logs = self._call("logs", "--tail", "30", self._name, check=False)
                    raise KafkaFailed(f"Kafka does not serve after {timeout:.0f} s: {reason}\n{logs}") from None
                time.sleep(0.2)
            else:
                return

    def _call(self, *args: str, check: bool = True) -> str:
        return self._run([self._docker, *args], check=check)

    def _run(self, command: list[str], *, check: bool = True) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise KafkaFailed(f"{' '.join(command[:2])}: {done.stderr.strip()}")
        return done.stdout + done.stderr
