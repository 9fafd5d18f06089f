"""A Dask cluster of real processes on this machine, to be killed."""

import json
import os
import subprocess
import sys
import time


class Cluster:
    """A scheduler and its workers, each an operating system's process on the loopback interface."""

    def __init__(self, folder):
        self._folder, self._processes = folder, []
        file = folder / "scheduler.json"
        self._start("scheduler", "--port", "0", "--scheduler-file", file)
        self._wait_for(lambda: file.exists() and file.stat().st_size)  # it is there before it is written
        self.address = json.loads(file.read_text())["address"]

    def add_worker(self, *options, path=()):
        """Start a worker; ``path`` are folders whose modules and packages it prefers to those that are installed."""
        return self._start("worker", self.address, "--local-directory", self._folder, *options, path=path)

    def _start(self, *arguments, path=()):
        command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([*map(str, path), *sys.path]),  # as tests send functions of their own modules
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",  # so that an item kills two workers at most
        }
        with open(self._folder / f"{len(self._processes)}.log", "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, env=environment)
        self._processes.append(process)
        return process

    def _wait_for(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, [path.read_text() for path in self._folder.glob("*.log")]
            time.sleep(0.02)

    def kill_scheduler(self):
        """Kill the scheduler, which loses all that runs."""
        self._processes[0].kill()

    def kill_workers(self):
        """Kill all workers, and what would start them again."""
        for process in self._processes[1:]:
            process.kill()

    def close(self):
        """Kill every process by its id; the workers' own processes end when those that watch them are gone."""
        for process in self._processes:
            process.kill()
            process.wait()
