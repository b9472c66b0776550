"""The Azure CLI, logged in on a twin that the tests of one module share."""

import json
import os
import subprocess
import sys
import time
import unittest

import served

PRINCIPAL = "11111111-1111-1111-1111-111111111111"

# The twin that is served now.
twin = None


class Failed(Exception):
    """A command that ended with an error; its text is what the CLI said."""


def az(*arguments):
    """What a command prints, as JSON."""
    environment = {
        **os.environ,
        "AZURE_CONFIG_DIR": str(twin.directory / "azure"),
        "REQUESTS_CA_BUNDLE": twin.certificate,
        "AZURE_CORE_INSTANCE_DISCOVERY": "false",
        "AZURE_CORE_COLLECT_TELEMETRY": "false",
        "AZURE_CORE_NO_COLOR": "true",
    }
    # What-if prints for people unless it is told otherwise.
    output = ["--no-pretty-print"] if "what-if" in arguments else ["--output", "json"]
    command = [sys.executable, "-m", "azure.cli", *map(str, arguments), *output]
    began = time.monotonic()
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if "SHOW" in os.environ:
        print(f"{time.monotonic() - began:5.1f} s  az {' '.join(command[3:])}", file=sys.stderr)
    if ran.returncode != 0:
        raise Failed(ran.stderr)
    return json.loads(ran.stdout) if ran.stdout.strip() else None


def begin(name):
    """Serves a twin until the module is done, and logs in."""
    global twin
    twin = served.Twin(name)
    unittest.addModuleCleanup(twin.stop)
    # From the address of Resource Manager alone: the rest is in its metadata.
    az("cloud", "register", "--name", "twin", "--endpoint-resource-manager", twin.arm)
    az("cloud", "set", "--name", "twin")
    az("login", "--service-principal", "--username", PRINCIPAL, "--password", "secret", "--tenant", twin.tenant)
    return twin


class Case(unittest.TestCase):
    """A test with a resource group of its own."""

    maxDiff = None

    def group(self, *arguments):
        name = "group-" + self._testMethodName.replace("_", "-")
        az("group", "create", "--name", name, "--location", "westus2", *arguments)
        return name

    def refused(self, code, *arguments):
        """That the command fails, and what the CLI said."""
        with self.assertRaises(Failed) as raised:
            az(*arguments)
        self.assertIn(code, str(raised.exception))
        return str(raised.exception)
