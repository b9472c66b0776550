"""The Azure SDKs for Python on the twin: pollers, failures, throttling and pages as programs meet them."""

import base64
import logging
import os
import time
import unittest

from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.mgmt.resource.deployments import DeploymentsMgmtClient
from azure.mgmt.resource.locks import ManagementLockClient

import served

SCOPE = "https://management.azure.com/.default"
PRINCIPAL = "11111111-1111-1111-1111-111111111111"
LOCATION = "westus2"

twin = None


def setUpModule():
    global twin
    twin = served.Twin("sdk")
    unittest.addModuleCleanup(twin.stop)
    os.environ["REQUESTS_CA_BUNDLE"] = twin.certificate
    # Refused logins are what one test is about.
    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)


def credential(of, secret="secret"):
    authority = of.authority.removeprefix("https://")
    return ClientSecretCredential(of.tenant, PRINCIPAL, secret, authority=authority, disable_instance_discovery=True)


class Kept:
    """A token that is fetched once: in a fast world the usual credentials fetch one for each request."""

    def __init__(self, of):
        self.token = credential(of).get_token(SCOPE).token

    def get_token(self, *scopes, **options):
        return AccessToken(self.token, int(time.time()) + 3600)


def client(kind, of=None, login=None, **options):
    of = of or twin
    return kind(login or credential(of), of.subscription, base_url=of.arm, credential_scopes=[SCOPE], **options)


class Case(unittest.TestCase):
    """A test with a resource group of its own."""

    def setUp(self):
        self.groups = client(ResourceManagementClient)
        self.network = client(NetworkManagementClient)
        self.compute = client(ComputeManagementClient)
        self.group = "group-" + self._testMethodName.replace("_", "-")
        self.groups.resource_groups.create_or_update(self.group, {"location": LOCATION, "tags": {"test": self.group}})
        self.addCleanup(twin.no_faults)

    def interface(self, name):
        """A network interface with a network around it, made with pollers; answers its id."""
        rule = {
            "priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "*",
            "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "22",
        }
        rules = [{"name": "ssh", "properties": rule}]
        guard = self.network.network_security_groups.begin_create_or_update(
            self.group, "nsg", {"location": LOCATION, "properties": {"securityRules": rules}}
        ).result()
        subnet = {"addressPrefix": "10.0.0.0/24", "networkSecurityGroup": {"id": guard.id}}
        space = {"addressPrefixes": ["10.0.0.0/16"]}
        properties = {"addressSpace": space, "subnets": [{"name": "nodes", "properties": subnet}]}
        network = self.network.virtual_networks.begin_create_or_update(
            self.group, "vnet", {"location": LOCATION, "properties": properties}
        ).result()
        self.assertEqual((network.subnets[0].name, network.subnets[0].address_prefix), ("nodes", "10.0.0.0/24"))
        address = self.network.public_ip_addresses.begin_create_or_update(
            self.group,
            name,
            {"location": LOCATION, "sku": {"name": "Standard"}, "properties": {"publicIPAllocationMethod": "Static"}},
        ).result()
        self.assertRegex(address.ip_address, r"^127\.")
        properties = {"subnet": {"id": network.subnets[0].id}, "publicIPAddress": {"id": address.id}}
        properties = {"ipConfigurations": [{"name": "ip", "properties": properties}]}
        interface = self.network.network_interfaces.begin_create_or_update(
            self.group, name, {"location": LOCATION, "properties": properties}
        ).result()
        self.assertEqual(interface.provisioning_state, "Succeeded")
        self.assertTrue(interface.ip_configurations[0].private_ip_address.startswith("10.0.0."))
        return interface.id

    def machine(self, name, size="Standard_D2s_v5", **more):
        """The body of a request for a machine, with its interface made."""
        key = {"path": "/home/k0s/.ssh/authorized_keys", "keyData": served.PUBLIC_KEY.read_text().strip()}
        properties = {
            "hardwareProfile": {"vmSize": size},
            "storageProfile": {
                "imageReference": {"publisher": "Debian", "offer": "debian-12", "sku": "12-gen2", "version": "latest"},
                "osDisk": {"createOption": "FromImage", "deleteOption": "Delete"},
            },
            "osProfile": {
                "computerName": name,
                "adminUsername": "k0s",
                "customData": base64.b64encode(b"#cloud-config\n").decode(),
                "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": {"publicKeys": [key]}},
            },
            "networkProfile": {
                "networkInterfaces": [{"id": self.interface(name), "properties": {"deleteOption": "Delete"}}]
            },
        }
        return {"location": LOCATION, "properties": properties, **more}


class Login(Case):
    def test_wrong_secret(self):
        with self.assertRaises(ClientAuthenticationError) as raised:
            credential(twin, "wrong").get_token(SCOPE)
        self.assertIn("AADSTS7000215", str(raised.exception))

    def test_unknown_token(self):
        class Forged:
            def get_token(self, *scopes, **options):
                return AccessToken("e30.e30.", int(time.time()) + 3600)

        with self.assertRaises(ClientAuthenticationError) as raised:
            list(client(ResourceManagementClient, login=Forged()).resource_groups.list())
        self.assertEqual((raised.exception.status_code, raised.exception.error.code), (401, "InvalidAuthenticationToken"))


class Resources(Case):
    def test_groups_tags_and_locks(self):
        groups = self.groups.resource_groups
        self.assertTrue(groups.check_existence(self.group))
        found = list(groups.list(filter=f"tagName eq 'test' and tagValue eq '{self.group}'"))
        self.assertEqual([group.name for group in found], [self.group])
        groups.update(self.group, {"tags": {"a": "b"}})
        self.assertEqual(groups.get(self.group).tags, {"a": "b"})
        with self.assertRaises(HttpResponseError) as raised:
            groups.create_or_update(self.group, {"location": "eastus"})
        self.assertEqual(raised.exception.error.code, "InvalidResourceGroupLocation")

        self.network.network_security_groups.begin_create_or_update(
            self.group, "nsg", {"location": LOCATION, "tags": {"run": self.group}}
        ).result()
        scope = twin.id(self.group, "Microsoft.Network/networkSecurityGroups/nsg")
        patch = {"operation": "Merge", "properties": {"tags": {"more": "yes"}}}
        changed = self.groups.tags.begin_update_at_scope(scope, patch).result()
        self.assertEqual(dict(changed.properties.tags), {"run": self.group, "more": "yes"})
        listed = list(self.groups.resources.list(filter=f"tagName eq 'run' and tagValue eq '{self.group}'"))
        self.assertEqual([(each.name, each.tags) for each in listed], [("nsg", None)])
        updated = self.network.network_security_groups.update_tags(self.group, "nsg", {"tags": {"only": "this"}})
        self.assertEqual(updated.tags, {"only": "this"})

        locks = client(ManagementLockClient).management_locks
        locks.create_or_update_at_resource_group_level(self.group, "keep", {"properties": {"level": "CanNotDelete"}})
        with self.assertRaises(ResourceExistsError) as raised:
            groups.begin_delete(self.group)
        self.assertEqual((raised.exception.status_code, raised.exception.error.code), (409, "ScopeLocked"))
        locks.delete_at_resource_group_level(self.group, "keep")
        groups.begin_delete(self.group).result()
        self.assertFalse(groups.check_existence(self.group))

    def test_pages(self):
        compute = client(ComputeManagementClient, login=Kept(twin))
        key = served.PUBLIC_KEY.read_text().strip()
        names = [f"key-{number:03}" for number in range(301)]
        for name in names:
            compute.ssh_public_keys.create(self.group, name, {"location": LOCATION, "properties": {"publicKey": key}})
        pages = [len(list(page)) for page in compute.ssh_public_keys.list_by_resource_group(self.group).by_page()]
        self.assertEqual(pages, [300, 1])
        self.assertEqual([key.name for key in compute.ssh_public_keys.list_by_resource_group(self.group)], names)
        whole = self.groups.resources.list_by_resource_group(self.group, top=100).by_page()
        self.assertEqual([len(list(page)) for page in whole], [100, 100, 100, 1])

    def test_deployments(self):
        deployments = client(DeploymentsMgmtClient).deployments
        template = {
            "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
            "contentVersion": "1.0.0.0",
            "parameters": {"name": {"type": "string"}},
            "resources": [
                {
                    "type": "Microsoft.Network/networkSecurityGroups",
                    "apiVersion": "2024-05-01",
                    "name": "[parameters('name')]",
                    "location": "[resourceGroup().location]",
                }
            ],
            "outputs": {"id": {"type": "string", "value": "[reference(parameters('name'), '2024-05-01', 'Full').id]"}},
        }
        properties = {"mode": "Incremental", "template": template, "parameters": {"name": {"value": "nsg"}}}
        predicted = deployments.begin_what_if(self.group, "one", {"properties": properties}).result()
        self.assertEqual([(change.change_type, change.delta) for change in predicted.changes], [("Create", [])])
        checked = deployments.begin_validate(self.group, "one", {"properties": properties}).result()
        self.assertIsNone(checked.error)
        made = deployments.begin_create_or_update(self.group, "one", {"properties": properties}).result()
        self.assertEqual(made.properties.provisioning_state, "Succeeded")
        nsg = twin.id(self.group, "Microsoft.Network/networkSecurityGroups/nsg")
        self.assertEqual(made.properties.outputs, {"id": {"type": "String", "value": nsg}})
        self.assertTrue(deployments.check_existence(self.group, "one"))
        del properties["parameters"]
        with self.assertRaises(HttpResponseError) as raised:
            deployments.begin_validate(self.group, "two", {"properties": properties})
        self.assertEqual((raised.exception.status_code, raised.exception.error.code), (400, "InvalidTemplate"))


class Machines(Case):
    def test_life_of_a_machine(self):
        machines = self.compute.virtual_machines
        machine = self.machine("one", zones=["1"], tags={"a": "b"})
        poller = machines.begin_create_or_update(self.group, "one", machine)
        self.assertEqual(poller.status(), "InProgress")
        made = poller.result()
        self.assertEqual((made.provisioning_state, made.zones, made.tags), ("Succeeded", ["1"], {"a": "b"}))
        self.assertIsNone(made.os_profile.custom_data)
        view = machines.instance_view(self.group, "one")
        self.assertEqual([status.code for status in view.statuses], ["ProvisioningState/succeeded", "PowerState/running"])
        # The same once more changes nothing.
        again = machines.begin_create_or_update(self.group, "one", machine).result()
        self.assertEqual(again.vm_id, made.vm_id)
        with self.assertRaises(ResourceExistsError) as raised:
            machines.begin_create_or_update(self.group, "one", {**machine, "zones": ["2"]})
        self.assertEqual(raised.exception.error.code, "PropertyChangeNotAllowed")

        def power():
            return machines.get(self.group, "one", expand="instanceView").instance_view.statuses[-1].code

        for action, state in [
            (machines.begin_power_off, "stopped"), (machines.begin_start, "running"), (machines.begin_restart, "running"),
            (machines.begin_deallocate, "deallocated"), (machines.begin_start, "running"),
        ]:
            self.assertIsNone(action(self.group, "one").result())
            self.assertEqual(power(), f"PowerState/{state}")
        self.assertEqual([each.name for each in machines.list_all()], ["one"])
        machines.begin_delete(self.group, "one", force_deletion=True).result()
        with self.assertRaises(ResourceNotFoundError):
            machines.get(self.group, "one")
        self.assertEqual(list(self.compute.disks.list_by_resource_group(self.group)), [])
        self.assertEqual(list(self.network.network_interfaces.list(self.group)), [])

    def test_sizes_and_images(self):
        sizes = {size.name: size for size in self.compute.resource_skus.list(filter=f"location eq '{LOCATION}'")}
        capabilities = {each.name: each.value for each in sizes["Standard_D2pls_v6"].capabilities}
        self.assertEqual((capabilities["vCPUs"], capabilities["CpuArchitectureType"]), ("2", "Arm64"))
        images = self.compute.virtual_machine_images
        newest = images.list(LOCATION, "Debian", "debian-12", "12-arm64", top=1, orderby="name desc")
        self.assertEqual([image.name for image in newest], ["0.20261102.2282"])
        self.assertIn("debian-12", [offer.name for offer in images.list_offers(LOCATION, "Debian")])
        usage = {row.name.value: row for row in self.compute.usage.list("uksouth")}
        self.assertEqual((usage["cores"].current_value, usage["cores"].limit), (0, 20_000))

    def test_operations_that_fail(self):
        machine = self.machine("unlucky", zones=["3"])
        create = self.compute.virtual_machines.begin_create_or_update
        for fault, code in [
            ({"name": "operation-failure", "target": "unlucky", "times": 1}, "InternalOperationError"),
            ({"name": "capacity", "target": "zone-3", "times": 1}, "ZonalAllocationFailed"),
        ]:
            twin.fault(**fault)
            poller = create(self.group, "unlucky", machine)
            with self.assertRaises(HttpResponseError) as raised:
                poller.result()
            self.assertEqual((raised.exception.error.code, poller.status()), (code, "Failed"))
            failed = self.compute.virtual_machines.get(self.group, "unlucky")
            self.assertEqual(failed.provisioning_state, "Failed")
            twin.no_faults()
        self.assertEqual(create(self.group, "unlucky", machine).result().provisioning_state, "Succeeded")
        twin.fault(name="quota", target=LOCATION)
        with self.assertRaises(ResourceExistsError) as raised:
            create(self.group, "large", self.machine("large", size="Standard_D16s_v5"))
        self.assertEqual((raised.exception.status_code, raised.exception.error.code), (409, "OperationNotAllowed"))
        self.assertIn("Current Limit: 10", raised.exception.message)


class Patience(unittest.TestCase):
    """In a world that is as fast as ours, so that `Retry-After` counts seconds."""

    def test_throttled(self):
        slow = served.Twin("slow", speed=1)
        self.addCleanup(slow.stop)
        os.environ["REQUESTS_CA_BUNDLE"] = slow.certificate
        self.addCleanup(os.environ.__setitem__, "REQUESTS_CA_BUNDLE", twin.certificate)
        login = Kept(slow)
        seen = []
        remember = lambda response: seen.append((response.http_response.status_code, response.http_response.headers))
        groups = client(ResourceManagementClient, of=slow, login=login).resource_groups
        slow.fault(name="throttle", times=1)
        with self.assertRaises(HttpResponseError) as raised:
            list(client(ResourceManagementClient, of=slow, login=login, retry_total=0).resource_groups.list())
        self.assertEqual((raised.exception.status_code, raised.exception.error.code), (429, "TooManyRequests"))
        wait = int(raised.exception.response.headers["Retry-After"])
        slow.fault(name="throttle", times=1)
        began = time.monotonic()
        self.assertEqual(list(groups.list(raw_response_hook=remember)), [])
        self.assertGreaterEqual(time.monotonic() - began, wait)
        self.assertEqual([status for status, _ in seen], [429, 200])
        self.assertIn("x-ms-ratelimit-remaining-subscription-reads", seen[1][1])
        slow.fault(name="server-error", times=1)
        self.assertEqual(list(groups.list()), [])


if __name__ == "__main__":
    unittest.main()
