"""Java and Kafka's jars: what every broker of this machine shares, kept in a cache folder.

The jars come by Maven, once per `pom.xml`, from wherever Maven is set up to get things. The class-data archive spares a broker
half of its start; it is made by a broker that runs for a moment, once per Java and set of jars. Both appear whole or not at all,
and several processes may want them at once.
"""

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from domain.errors import Unavailable
from infra.stack.process import ENVIRONMENT, which
from infra.stack.server import missing

Tell = Callable[[str], None]
"""Told what takes long, one line each."""

_HERE = Path(__file__).parent
_POM = _HERE / "pom.xml"
_LOGGING = _HERE / "log4j2.properties"

_MACHINE = ("-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
"""Small and quick to start. A broker here is light on the processor, so the second compiler would not pay."""


class Runtime:
    """Java and jars under `cache`. `train` runs a broker for a moment with the given Java options."""

    def __init__(self, cache: Path, tell: Tell, train: "Callable[[Runtime, Sequence[str], Path], None]") -> None:
        self._cache, self._tell, self._train = cache, tell, train

    @cached_property
    def java(self) -> Path | None:
        """None where there is none."""
        return which("java")

    def prepare(self) -> None:
        """Fetches the jars and makes the archive, unless they are there. Raises `Unavailable` saying what to install."""
        if self.java is None:
            raise missing("Java", "apt-get install openjdk-17-jre-headless")
        if not (self._jars.exists() and self._archive.exists()):
            self._cache.mkdir(parents=True, exist_ok=True)
            with _alone(self._cache / "lock"):
                if not self._jars.exists():
                    self._fetch()
                if not self._archive.exists():
                    self._make_archive()

    def command(self, main: str, *arguments: str, work: Path, options: Sequence[str] = ()) -> list[str]:
        """What runs the class `main` in the folder `work`; `options` are Java's, instead of those that use the archive."""
        change, java = which("env"), self.java
        assert change is not None, "env is a part of every system"
        assert java is not None, "prepare() came first"
        chosen = [*_MACHINE, f"-Dlog4j2.configurationFile={_LOGGING}", f"-Djava.io.tmpdir={work}"]
        chosen += options or (f"-XX:SharedArchiveFile={self._archive}",)
        jars = ":".join(str(jar) for jar in sorted(self._jars.glob("*.jar")))
        return [str(change), f"--chdir={work}", f"CLASSPATH={jars}", str(java), *chosen, main, *arguments]

    def run(self, main: str, *arguments: str, work: Path, options: Sequence[str] = ()) -> None:
        """Runs the class `main` to its end. Raises `Unavailable` with what it said, if it fails."""
        _run(self.command(main, *arguments, work=work, options=options), main, ENVIRONMENT)

    @cached_property
    def _jars(self) -> Path:
        return self._cache / f"kafka-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"

    @cached_property
    def _archive(self) -> Path:
        assert self.java is not None
        java = self.java.resolve()
        identity = f"{java}{java.stat().st_mtime_ns}{self._jars}{_MACHINE}"
        return self._cache / f"{self._jars.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.jsa"

    def _fetch(self) -> None:
        maven = which("mvn")
        if maven is None:
            raise missing("Maven", "apt-get install maven")
        self._tell("fetching Apache Kafka with Maven (45 MB, once)")
        with tempfile.TemporaryDirectory(dir=self._cache) as folder:
            whole = Path(folder) / "jars"
            goal = ["-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={whole}"]
            _run([str(maven), *goal], "mvn", None)
            whole.rename(self._jars)

    def _make_archive(self) -> None:
        self._tell("making an archive of Kafka's classes (a few seconds, once)")
        with tempfile.TemporaryDirectory(dir=self._cache) as folder:
            whole = Path(folder) / "classes.jsa"
            self._train(
                self, (f"-XX:ArchiveClassesAtExit={whole}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"), Path(folder)
            )
            if not whole.exists():
                raise Unavailable(
                    "Java made no archive of Kafka's classes: Java 17 or later is needed", code="stack_failed"
                )
            whole.rename(self._archive)


def _run(command: Sequence[str], name: str, environment: dict[str, str] | None) -> None:
    ran = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode:
        said = " ".join(ran.stdout.split()[-60:])
        raise Unavailable(f"{name} failed: {said}", code="stack_failed")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
