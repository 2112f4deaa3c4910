"""Run scripts in processes of their own: copies of the tests' process, or new ones.

A new process imports torch and all the rest, which takes five seconds of CPU time.
"""

import importlib
import io
import math
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import NoReturn

REPO = Path(__file__).resolve().parents[1]


class Started:
    """A script that runs in copies of this process.

    pids: of the processes, one for each rank of torchrun. files: their stdout and stderr.
    """

    def __init__(self, args: tuple, cwd: Path, processes: int, timeout: float) -> None:
        self.args, self.pids = args, []
        self._folder = tempfile.TemporaryDirectory()
        self.files = [Path(self._folder.name, stream) for stream in ("out", "err")]
        for file in self.files:
            file.touch()
        for env in _environments(processes):
            if not (pid := os.fork()):
                _be_script(*map(str, args), cwd=cwd, files=self.files, env=env, timeout=timeout)
            self.pids.append(pid)

    def is_running(self) -> bool:
        """Whether none of the processes has ended."""
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return all(os.waitid(os.P_PID, pid, look) is None for pid in self.pids)

    def wait(self) -> subprocess.CompletedProcess:
        """The exit code that is furthest from 0, and what the processes wrote."""
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self.pids]
        texts = [file.read_text("utf-8") for file in self.files]
        self._folder.cleanup()
        return subprocess.CompletedProcess(self.args, max(codes, key=abs), *texts)


def start(*args: object, cwd: Path, processes: int = 1, timeout: float = 240) -> Started:
    """Start a script as `run` does, and do not wait for its end."""
    return Started(args, cwd, processes, timeout)


def run(
    *args: object, cwd: Path, processes: int = 1, timeout: float = 240
) -> subprocess.CompletedProcess:
    """Run a script as a user does: `run("train.py", "--limit", 3, cwd=folder)`.

    It imports the project's modules again, but not those of other packages: so it cannot show
    what is wrong with their imports. processes: as many as torchrun would start. After `timeout`
    seconds the script is killed.
    """
    return start(*args, cwd=cwd, processes=processes, timeout=timeout).wait()


def run_cold(*args: object, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess:
    """Run a script in a new process. One such test for each script is enough."""
    script, *flags = args
    return subprocess.run(
        [sys.executable, REPO / str(script), *map(str, flags)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "MPLBACKEND": ""},
        check=False,
    )


def _environments(processes: int) -> list[dict[str, str]]:
    """What torchrun sets for each of its processes; nothing if there is one process."""
    if processes == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), **address} for rank in range(processes)]


def _be_script(
    script: str, *flags: str, cwd: Path, files: list[Path], env: dict, timeout: float
) -> NoReturn:
    """Turn this copy of the process into that of a script, which writes its output to files."""
    code = 1
    try:
        signal.alarm(math.ceil(timeout))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(cwd)
        os.environ.update(env)
        for number, file in enumerate(files, start=1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
        raw = (io.FileIO(number, "w", closefd=False) for number in (1, 2))
        sys.stdout, sys.stderr = (io.TextIOWrapper(r, "utf-8", write_through=True) for r in raw)
        importlib.reload(warnings)  # pytest collects them: they must be printed
        warnings.resetwarnings()
        for kind in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        path = REPO / script
        _forget_project()
        sys.path.insert(0, str(path.parent))
        sys.argv = [str(path), *flags]
        runpy.run_path(str(path), run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _forget_project() -> None:
    """Let imports find what they would find in a new process: the project is not yet imported."""

    def is_own(path: str | None) -> bool:
        return f"{path}/".startswith(f"{REPO}/") and not f"{path}/".startswith(f"{sys.prefix}/")

    for name, module in [*sys.modules.items()]:
        path = getattr(module, "__file__", None)
        if is_own(path) and not path.startswith(f"{REPO}/tests/"):
            del sys.modules[name]
    sys.path[:] = [path for path in sys.path if not is_own(path)]
