"""The Azure CLI on the twin: machines, templates, and a cluster of ours, as a person would type it and read it."""

import json
import os
import pathlib
import subprocess
import unittest

import cli
import served
from cli import Case, Failed, az

IMAGE = "Debian:debian-12:12-gen2:latest"
SIZE = "Standard_D2s_v5"


twin = None


def setUpModule():
    global twin
    twin = cli.begin("machines")


class Catalogue(Case):
    def test_locations_and_providers(self):
        locations = {location["name"]: location for location in az("account", "list-locations")}
        self.assertEqual(locations["westus2"]["displayName"], "West US 2")
        zones = locations["westus2"]["availabilityZoneMappings"]
        self.assertEqual([zone["logicalZone"] for zone in zones], ["1", "2", "3"])
        compute = az("provider", "show", "--namespace", "Microsoft.Compute")
        self.assertEqual(compute["registrationState"], "Registered")
        self.assertIn("virtualMachines", [kind["resourceType"] for kind in compute["resourceTypes"]])
        az("provider", "register", "--namespace", "Microsoft.Storage")
        states = {each["namespace"]: each["registrationState"] for each in az("provider", "list")}
        self.assertEqual((states["Microsoft.Storage"], states["Microsoft.Quota"]), ("Registered", "NotRegistered"))

    def test_sizes_images_and_limits(self):
        sizes = az("vm", "list-skus", "--location", "westus2", "--size", "Standard_D2", "--zone")
        names = [size["name"] for size in sizes]
        self.assertIn(SIZE, names)
        self.assertTrue(all(name.startswith("Standard_D2") for name in names), names)
        restricted = az("vm", "list-skus", "--location", "westus2", "--size", "Standard_D2pls_v5", "--all")
        self.assertEqual(restricted[0]["restrictions"][0]["restrictionInfo"]["zones"], ["3"])
        plain = {size["name"]: size for size in az("vm", "list-sizes", "--location", "westus2")}
        self.assertEqual((plain[SIZE]["numberOfCores"], plain[SIZE]["memoryInMB"]), (2, 8192))
        usage = {row["name"]["value"]: row for row in az("vm", "list-usage", "--location", "eastus")}
        self.assertEqual((usage["cores"]["currentValue"], usage["cores"]["limit"]), ("0", "20000"))
        addresses = {row["name"]["value"]: row for row in az("network", "list-usages", "--location", "eastus")}
        self.assertEqual(addresses["PublicIPAddresses"]["limit"], "1000")
        images = az("vm", "image", "list", "--location", "westus2", "--publisher", "Debian", "--offer", "debian-12", "--all")
        self.assertEqual({image["sku"] for image in images}, {"12", "12-gen2", "12-arm64"})
        self.assertIn("Debian:debian-12:12-gen2:0.20261102.2282", [image["urn"] for image in images])
        shown = az("vm", "image", "show", "--location", "westus2", "--urn", "Debian:debian-12:12-arm64:latest")
        self.assertEqual((shown["architecture"], shown["hyperVGeneration"]), ("Arm64", "V2"))
        publishers = az("vm", "image", "list-publishers", "--location", "westus2")
        self.assertEqual([publisher["name"] for publisher in publishers], ["Debian", "Canonical"])
        self.assertEqual(az("image", "list"), [])


class Machines(Case):
    def machine(self, group, name, *arguments):
        return az(
            "vm", "create", "--resource-group", group, "--name", name, "--image", IMAGE, "--size", SIZE,
            "--admin-username", "k0s", "--ssh-key-values", served.PUBLIC_KEY, "--public-ip-sku", "Standard", *arguments
        )

    def test_life_of_a_machine(self):
        group = self.group()
        of_group, of_machine = ["--resource-group", group], ["--resource-group", group, "--name", "one"]
        data = twin.directory / "custom-data.yaml"
        data.write_text("#cloud-config\nhostname: one\n")
        made = self.machine(
            group, "one", "--zone", 1, "--custom-data", data, "--tags", "role=worker", "--os-disk-delete-option", "Delete",
            "--nic-delete-option", "Delete",
        )
        self.assertEqual((made["powerState"], made["privateIpAddress"], made["zones"]), ("VM running", "10.0.0.4", "1"))
        listed = az("vm", "list", *of_group, "--show-details")
        self.assertEqual([machine["name"] for machine in listed], ["one"])
        one = listed[0]
        self.assertEqual(
            (one["powerState"], one["publicIps"], one["privateIps"], one["macAddresses"], one["zones"], one["tags"]),
            ("VM running", made["publicIpAddress"], "10.0.0.4", made["macAddress"], ["1"], {"role": "worker"}),
        )
        self.assertNotIn("customData", one["osProfile"])
        image = one["storageProfile"]["imageReference"]
        self.assertEqual((image["sku"], image["exactVersion"]), ("12-gen2", "0.20261102.2282"))
        view = az("vm", "get-instance-view", *of_machine)["instanceView"]
        codes = [status["code"] for status in view["statuses"]]
        self.assertEqual(codes, ["ProvisioningState/succeeded", "PowerState/running"])
        self.assertEqual(view["vmAgent"]["statuses"][0]["displayStatus"], "Ready")
        addresses = az("vm", "list-ip-addresses", *of_machine)[0]["virtualMachine"]["network"]
        self.assertEqual(addresses["publicIpAddresses"][0]["ipAddress"], made["publicIpAddress"])

        for command, state in [
            ("stop", "VM stopped"), ("start", "VM running"), ("deallocate", "VM deallocated"), ("start", "VM running"),
            ("restart", "VM running"),
        ]:
            az("vm", command, *of_machine)
            self.assertEqual(az("vm", "show", *of_machine, "--show-details")["powerState"], state, command)
        updated = az("vm", "update", *of_machine, "--set", "tags.more=yes")
        self.assertEqual(updated["tags"], {"role": "worker", "more": "yes"})
        resized = az("vm", "resize", *of_machine, "--size", "Standard_D4s_v5")
        self.assertEqual(resized["hardwareProfile"]["vmSize"], "Standard_D4s_v5")
        usage = {row["name"]["value"]: row for row in az("vm", "list-usage", "--location", "westus2")}
        self.assertEqual(usage["standardDSv5Family"]["currentValue"], "4")
        self.assertEqual(az("vm", "extension", "list", *of_group, "--vm-name", "one"), [])
        said = self.refused("OperationNotAllowed", "vm", "simulate-eviction", *of_machine)
        self.assertIn("Spot", said)

        disk = az("disk", "list", *of_group)[0]
        self.assertEqual((disk["diskState"], disk["osType"], disk["zones"]), ("Attached", "Linux", ["1"]))
        self.assertTrue(disk["managedBy"].endswith("/virtualMachines/one"))
        self.refused("is attached to VM", "disk", "delete", *of_group, "--name", disk["name"], "--yes")
        empty = az("disk", "create", *of_group, "--name", "data", "--size-gb", 64, "--sku", "Premium_LRS")
        self.assertEqual((empty["diskSizeGB"], empty["diskState"]), (64, "Unattached"))

        az("vm", "delete", *of_machine, "--yes")
        self.assertEqual(az("vm", "list", *of_group), [])
        self.assertEqual([disk["name"] for disk in az("disk", "list", *of_group)], ["data"])
        self.assertEqual(az("network", "nic", "list", *of_group), [])
        self.assertEqual([pip["name"] for pip in az("network", "public-ip", "list", *of_group)], ["onePublicIP"])
        az("disk", "delete", *of_group, "--name", "data", "--yes")
        az("group", "delete", "--name", group, "--yes", "--force-deletion-types", "Microsoft.Compute/virtualMachines")
        self.assertIs(az("group", "exists", "--name", group), False)

    def test_people_log_in_with_their_own_keys(self):
        group = self.group()
        keys = twin.directory / "keys"
        keys.mkdir()

        def keygen(name, *arguments):
            command = ["ssh-keygen", "-q", "-C", name, "-f", str(keys / name), *arguments]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            return keys / name

        rsa = keygen("rsa", "-t", "rsa", "-b", "3072", "-N", "")
        made = self.machine(group, "mine", "--ssh-key-values", f"{rsa}.pub")
        address, port = made["publicIpAddress"], str(twin.endpoints["ssh_port"])

        def openssh(key, *command):
            options = ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
            ssh = ["ssh", *options, "-i", str(key), "-p", port, f"k0s@{address}", *command]
            ran = subprocess.run(ssh, capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"]})
            return ran.returncode, ran.stdout

        self.assertEqual(openssh(rsa, "cat /etc/os-release | head -1; hostname"), (0, 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nmine\n'))
        stranger = keygen("stranger", "-t", "rsa", "-b", "3072", "-N", "")
        self.assertEqual(openssh(stranger, "hostname"), (255, ""))

        # The program itself, with the same key: as it is, with a passphrase, and in an agent.
        scanned = subprocess.run(["ssh-keyscan", "-p", port, address], capture_output=True, text=True, timeout=60).stdout
        host_key = next(line for line in scanned.splitlines() if line and not line.startswith("#")).split(" ", 1)[1]

        def findings(key, **variables):
            configuration = keys / "hosts.yaml"
            host = {
                "role": "controller", "address": address, "private_address": "10.0.0.4", "port": int(port), "user": "k0s",
                "key": str(key), "host_key": host_key,
            }
            configuration.write_text(json.dumps({"provider": "ssh", "hosts": [host]}))
            command = [served.PROGRAM, "--config", str(configuration), "--home", str(keys / "home"), "check"]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, env=variables)
            return ran.stdout + ran.stderr

        # Whoever gets in is told about the machine, which has no curl.
        inside, outside = "cannot be reached from there", "has a passphrase"
        self.assertNotIn("key ", findings(rsa))
        self.assertIn(inside, findings(rsa))
        self.assertIn("SSH does not accept the key of user k0s", findings(stranger))
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", str(rsa)], check=True)
        self.assertIn(outside, findings(rsa))
        self.assertIn("the passphrase is wrong", findings(rsa, K0RDENT_SSH_PASSPHRASE="wrong"))
        self.assertIn(inside, findings(rsa, K0RDENT_SSH_PASSPHRASE="open sesame"))
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(keys / "agent")], stdout=subprocess.DEVNULL)
        self.addCleanup(agent.wait)
        self.addCleanup(agent.terminate)
        while not (keys / "agent").exists():
            self.assertIsNone(agent.poll())
        helper = keys / "askpass"
        helper.write_text("#!/bin/sh\necho open sesame\n")
        helper.chmod(0o700)
        variables = {**os.environ, "SSH_AUTH_SOCK": str(keys / "agent"), "SSH_ASKPASS": str(helper), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", "-q", str(rsa)], check=True, env=variables, stdin=subprocess.DEVNULL)
        for key in (rsa, f"{rsa}.pub"):
            self.assertIn(inside, findings(key, SSH_AUTH_SOCK=str(keys / "agent")))

    def test_spot_machine_is_evicted(self):
        group = self.group()
        of_machine = ["--resource-group", group, "--name", "spot"]
        self.machine(group, "spot", "--priority", "Spot", "--eviction-policy", "Deallocate", "--max-price", "-1", "--zone", 2)
        shown = az("vm", "show", *of_machine)
        self.assertEqual((shown["priority"], shown["evictionPolicy"]), ("Spot", "Deallocate"))
        self.assertEqual(shown["billingProfile"]["maxPrice"], -1)
        az("vm", "simulate-eviction", *of_machine)
        az("vm", "wait", *of_machine, "--custom", "instanceView.statuses[?code=='PowerState/deallocated']", "--interval", 1, "--timeout", 60)
        events = az("monitor", "activity-log", "list", "--resource-group", group, "--offset", "90d")
        operations = [event["operationName"]["value"] for event in events]
        self.assertIn("Microsoft.Compute/virtualMachines/evict/action", operations)
        self.assertIn("Microsoft.Compute/virtualMachines/write", operations)
        self.assertTrue(all(event["resourceGroupName"] == group for event in events))
        events = az("monitor", "activity-log", "list", "--resource-id", shown["id"], "--offset", "90d")
        self.assertEqual({event["resourceId"] for event in events}, {shown["id"]})

    def test_machines_that_azure_refuses(self):
        group = self.group()
        self.addCleanup(twin.no_faults)
        twin.fault(name="capacity", target="zone-3")
        with self.assertRaises(Failed) as raised:
            self.machine(group, "no-room", "--zone", 3)
        self.assertIn("sufficient capacity for the requested VM size in this zone", str(raised.exception))
        twin.no_faults()
        twin.fault(name="quota", target="westus2")
        with self.assertRaises(Failed) as raised:
            self.machine(group, "too-many", "--size", "Standard_D16s_v5")
        self.assertIn("exceeding approved Total Regional Cores quota", str(raised.exception))

    def test_ssh_keys(self):
        of_key = ["--resource-group", self.group(), "--name", "key"]
        made = az("sshkey", "create", *of_key, "--public-key", f"@{served.PUBLIC_KEY}")
        self.assertEqual(made["publicKey"].split()[0], "ssh-ed25519")
        self.assertEqual([key["name"] for key in az("sshkey", "list", *of_key[:2])], ["key"])
        az("sshkey", "delete", *of_key, "--yes")
        self.assertEqual(az("sshkey", "list", *of_key[:2]), [])


class Deployments(Case):
    template = pathlib.Path(__file__).parent / "template.json"

    def test_template(self):
        group = self.group()
        of_deployment = ["--resource-group", group, "--name", "one", "--template-file", self.template]
        parameters = ["--parameters", "prefix=web", "machines=2", "password=hidden"]
        checked = az("deployment", "group", "validate", *of_deployment, *parameters)["properties"]
        self.assertEqual((checked["provisioningState"], len(checked["validatedResources"])), ("Succeeded", 4))
        before = az("deployment", "group", "what-if", *of_deployment, *parameters)
        self.assertEqual([change["changeType"] for change in before["changes"]], ["Create"] * 4)
        self.assertEqual(before["changes"][0]["after"]["name"], "web-nsg")
        done = az("deployment", "group", "create", *of_deployment, *parameters)["properties"]
        self.assertEqual((done["provisioningState"], done["mode"]), ("Succeeded", "Incremental"))
        self.assertEqual(done["outputs"]["addresses"], {"type": "Array", "value": ["10.1.0.4", "10.1.0.5"]})
        self.assertEqual(done["outputs"]["vnet"]["value"], twin.id(group, "Microsoft.Network/virtualNetworks/web-vnet"))
        self.assertEqual(done["parameters"]["password"], {"type": "SecureString"})
        nics = az("network", "nic", "list", "--resource-group", group)
        self.assertEqual([(nic["name"], nic["tags"]["turn"]) for nic in nics], [("web-0-nic", "0"), ("web-1-nic", "1")])
        after = az("deployment", "group", "what-if", *of_deployment, *parameters)
        self.assertEqual({change["changeType"] for change in after["changes"]}, {"NoChange"}, after)
        other = az("deployment", "group", "what-if", *of_deployment, *parameters, "--parameters", "priority=200")
        changes = {change["resourceId"].split("/")[-1]: change for change in other["changes"]}
        self.assertEqual(changes["web-nsg"]["changeType"], "Modify")
        self.assertEqual(changes["web-nsg"]["delta"][0]["path"], "properties.securityRules")
        operations = az("deployment", "operation", "group", "list", "--resource-group", group, "--name", "one")
        self.assertEqual([operation["properties"]["provisioningState"] for operation in operations], ["Succeeded"] * 4)
        self.assertEqual([each["name"] for each in az("deployment", "group", "list", "--resource-group", group)], ["one"])
        az("deployment", "group", "delete", "--resource-group", group, "--name", "one")
        self.refused("DeploymentNotFound", "deployment", "group", "show", "--resource-group", group, "--name", "one")

    def test_templates_that_fail(self):
        group = self.group()
        create = ["deployment", "group", "create", "--resource-group", group, "--template-file", self.template, "--name"]
        said = self.refused("InvalidTemplate", *create, "short", "--parameters", "prefix=x", "password=hidden")
        self.assertIn("minLength", said)
        self.addCleanup(twin.no_faults)
        twin.fault(name="operation-failure", target="bad-vnet")
        said = self.refused("DeploymentFailed", *create, "bad", "--parameters", "prefix=bad", "password=hidden")
        self.assertIn("InternalOperationError", said)
        shown = az("deployment", "group", "show", "--resource-group", group, "--name", "bad")["properties"]
        self.assertEqual((shown["provisioningState"], shown["error"]["code"]), ("Failed", "DeploymentFailed"))
        self.assertEqual(az("network", "nic", "list", "--resource-group", group), [])


class OurCluster(Case):
    """The other way round: what `k0rdentctl` made is what the CLI shows, and what the CLI changes is what it sees."""

    def run_ours(self, *arguments, code=0):
        home = twin.directory / "ours"
        home.mkdir(exist_ok=True)
        (home / "k0rdent.yaml").write_text(
            "cluster:\n  controllers: {count: 1, zones: [1]}\n  workers: {count: 1, zones: [2]}\n"
        )
        command = [served.PROGRAM, "--twin", str(twin.directory), *arguments, "--output", "json", "--quiet"]
        ran = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=180)
        self.assertEqual(ran.returncode, code, ran.stdout + ran.stderr)
        return json.loads(ran.stdout) if arguments[0] == "status" else None

    def test_cluster_is_seen_from_both_sides(self):
        self.run_ours("deploy", "-y")
        cluster = self.run_ours("status")["cluster_id"]
        group = f"{cluster}-resgrp"
        of_group = ["--resource-group", group]
        tags = az("group", "show", "--name", group)["tags"]
        self.assertEqual(tags["k0rdent-cluster-id"], cluster)
        machines = {machine["name"]: machine for machine in az("vm", "list", *of_group, "--show-details")}
        self.assertEqual(
            {name: (machine["powerState"], machine["zones"]) for name, machine in machines.items()},
            {"k0s-controller-1": ("VM running", ["1"]), "k0s-worker-1": ("VM running", ["2"])},
        )
        found = az("resource", "list", "--tag", f"k0rdent-cluster-id={cluster}")
        kinds = sorted({each["type"].split("/")[1] for each in found})
        self.assertEqual(
            kinds,
            ["disks", "networkInterfaces", "networkSecurityGroups", "publicIPAddresses", "sshPublicKeys", "virtualMachines", "virtualNetworks"],
        )
        rules = az("network", "nsg", "rule", "list", *of_group, "--nsg-name", f"{cluster}-nsg")
        self.assertTrue(any("22" in [rule["destinationPortRange"], *rule.get("destinationPortRanges", [])] for rule in rules))
        self.assertEqual(self.run_ours("status", "--check")["differences"], [])

        az("vm", "delete", *of_group, "--name", "k0s-worker-1", "--yes")
        differences = self.run_ours("status", "--check", code=1)["differences"]
        self.assertIn(("machine-missing", "k0s-worker-1"), [(each["name"], each["subject"]) for each in differences])
        self.run_ours("deploy", "-y")
        self.assertEqual(self.run_ours("status", "--check")["differences"], [])
        az("vm", "show", *of_group, "--name", "k0s-worker-1")

        az("network", "nsg", "rule", "delete", *of_group, "--nsg-name", f"{cluster}-nsg", "--name", rules[0]["name"])
        differences = self.run_ours("status", "--check", code=1)["differences"]
        self.assertIn("rule-missing", [each["name"] for each in differences])
        az("vm", "deallocate", *of_group, "--name", "k0s-worker-1")
        differences = self.run_ours("status", "--check", code=1)["differences"]
        self.assertIn("k0s-worker-1", [each["subject"] for each in differences])

        self.run_ours("reset", "-y")
        self.assertIs(az("group", "exists", "--name", group), False)

if __name__ == "__main__":
    unittest.main()
