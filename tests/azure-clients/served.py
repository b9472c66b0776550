"""A twin that is served for the tests, and what clients need to reach it.

`cargo xtask test` says where the program is (K0RDENTCTL) and which directory may be filled (AZURE_CLIENTS_DIRECTORY).
"""

import json
import os
import pathlib
import shutil
import subprocess
import urllib.request

PROGRAM = os.environ["K0RDENTCTL"]
DIRECTORY = pathlib.Path(os.environ["AZURE_CLIENTS_DIRECTORY"])
# The SSH key of a person.
PUBLIC_KEY = pathlib.Path(__file__).parent / "key.pub"
# World seconds per second: a machine is there in less than a second, and a token lives long enough for a request.
SPEED = 300


class Twin:
    """A twin in another process; `stop` ends it."""

    def __init__(self, name, speed=SPEED):
        self.directory = DIRECTORY / name
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        command = [PROGRAM, "twin", "serve", "--data-dir", str(self.directory), "--speed", str(speed)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        ready = self.process.stdout.readline()
        if not ready:
            raise RuntimeError(f"the twin ended: {self.process.wait()}")
        self.endpoints = json.loads(ready)
        self.arm = self.endpoints["arm"]
        self.authority = self.endpoints["authority"]
        self.subscription = self.endpoints["subscription_id"]
        self.tenant = self.endpoints["tenant_id"]
        self.certificate = str(self.directory / "ca.pem")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    def administrate(self, method, path, body=None):
        """Asks the administrator's port."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.endpoints["admin"] + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def fault(self, **fault):
        """Makes the world difficult."""
        self.administrate("POST", "/faults", fault)

    def no_faults(self):
        """Makes it easy again."""
        self.administrate("DELETE", "/faults")

    def id(self, group, rest):
        """The id of a resource: `rest` begins with its provider."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{group}/providers/{rest}"
