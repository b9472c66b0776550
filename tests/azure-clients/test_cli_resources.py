"""The Azure CLI on the twin: the account, groups, networks, tags and locks, as a person would type it and read it."""

import unittest

import cli
from cli import PRINCIPAL, Case, az


twin = None


def setUpModule():
    global twin
    twin = cli.begin("resources")


class Account(Case):
    def test_login(self):
        shown = az("account", "show")
        self.assertEqual(shown["id"], twin.subscription)
        self.assertEqual(shown["tenantId"], twin.tenant)
        self.assertEqual(shown["state"], "Enabled")
        self.assertEqual(shown["user"], {"name": PRINCIPAL, "type": "servicePrincipal"})
        self.assertEqual([account["id"] for account in az("account", "list")], [twin.subscription])
        endpoints = az("cloud", "show")["endpoints"]
        self.assertEqual(endpoints["activeDirectory"], twin.authority)
        token = az("account", "get-access-token")
        self.assertEqual((token["tokenType"], token["subscription"]), ("Bearer", twin.subscription))
        self.assertGreater(token["expires_on"], 0)

    def test_wrong_secret(self):
        said = self.refused(
            "AADSTS7000215", "login", "--service-principal", "--username", "22222222-2222-2222-2222-222222222222",
            "--password", "wrong", "--tenant", twin.tenant,
        )
        self.assertIn("Invalid client secret provided", said)


class Groups(Case):
    def test_groups(self):
        group = self.group("--tags", "owner=somebody")
        shown = az("group", "show", "--name", group)
        self.assertEqual((shown["location"], shown["tags"]), ("westus2", {"owner": "somebody"}))
        self.assertEqual(shown["properties"]["provisioningState"], "Succeeded")
        self.assertIn(group, [each["name"] for each in az("group", "list", "--tag", "owner=somebody")])
        self.assertEqual(az("group", "list", "--tag", "owner=nobody"), [])
        self.assertIs(az("group", "exists", "--name", group), True)
        updated = az("group", "update", "--name", group, "--set", "tags.more=yes")
        self.assertEqual(updated["tags"], {"owner": "somebody", "more": "yes"})
        self.refused("InvalidResourceGroupLocation", "group", "create", "--name", group, "--location", "eastus")
        az("group", "delete", "--name", group, "--yes")
        self.assertIs(az("group", "exists", "--name", group), False)
        self.refused("ResourceGroupNotFound", "group", "show", "--name", group)


class Network(Case):
    def test_security_groups(self):
        of_group = ["--resource-group", self.group()]
        made = az("network", "nsg", "create", *of_group, "--name", "nsg", "--tags", "a=b")["NewNSG"]
        self.assertEqual((made["provisioningState"], made["securityRules"]), ("Succeeded", []))
        self.assertEqual(len(made["defaultSecurityRules"]), 6)
        of_nsg = [*of_group, "--nsg-name", "nsg"]
        rule = az(
            "network", "nsg", "rule", "create", *of_nsg, "--name", "ssh", "--priority", 100, "--protocol", "Tcp",
            "--destination-port-ranges", 22, "--source-address-prefixes", "192.0.2.1/32",
        )
        self.assertEqual((rule["priority"], rule["sourceAddressPrefix"], rule["access"]), (100, "192.0.2.1/32", "Allow"))
        az(
            "network", "nsg", "rule", "create", *of_nsg, "--name", "mesh", "--priority", 110, "--protocol", "Udp",
            "--destination-port-ranges", 51820, 51821, "--source-address-prefixes", "*",
        )
        self.refused(
            "SecurityRuleConflict", "network", "nsg", "rule", "create", *of_nsg, "--name", "other", "--priority", 100,
            "--protocol", "Tcp", "--destination-port-ranges", 80,
        )
        moved = az("network", "nsg", "rule", "update", *of_nsg, "--name", "ssh", "--priority", 120)
        self.assertEqual((moved["priority"], moved["sourceAddressPrefix"]), (120, "192.0.2.1/32"))
        rules = az("network", "nsg", "rule", "list", *of_nsg)
        self.assertEqual({rule["name"]: rule["priority"] for rule in rules}, {"ssh": 120, "mesh": 110})
        mesh = az("network", "nsg", "rule", "show", *of_nsg, "--name", "mesh")
        self.assertEqual(mesh["destinationPortRanges"], ["51820", "51821"])
        az("network", "nsg", "rule", "delete", *of_nsg, "--name", "mesh")
        updated = az("network", "nsg", "update", *of_group, "--name", "nsg", "--set", "tags.c=d")
        self.assertEqual(updated["tags"], {"a": "b", "c": "d"})
        shown = az("network", "nsg", "show", *of_group, "--name", "nsg")
        self.assertEqual([rule["name"] for rule in shown["securityRules"]], ["ssh"])
        self.assertEqual([each["name"] for each in az("network", "nsg", "list", *of_group)], ["nsg"])
        az("network", "nsg", "delete", *of_group, "--name", "nsg")
        self.assertEqual(az("network", "nsg", "list", *of_group), [])

    def test_networks_addresses_and_interfaces(self):
        group = self.group()
        of_group = ["--resource-group", group]
        az("network", "nsg", "create", *of_group, "--name", "nsg")
        vnet = az(
            "network", "vnet", "create", *of_group, "--name", "vnet", "--address-prefixes", "10.0.0.0/16",
            "--subnet-name", "nodes", "--subnet-prefixes", "10.0.0.0/24", "--nsg", "nsg",
        )["newVNet"]
        self.assertEqual(vnet["addressSpace"]["addressPrefixes"], ["10.0.0.0/16"])
        self.assertTrue(vnet["subnets"][0]["networkSecurityGroup"]["id"].endswith("/networkSecurityGroups/nsg"))
        of_vnet = [*of_group, "--vnet-name", "vnet"]
        more = az("network", "vnet", "subnet", "create", *of_vnet, "--name", "more", "--address-prefixes", "10.0.1.0/24")
        self.assertEqual((more["addressPrefix"], more["provisioningState"]), ("10.0.1.0/24", "Succeeded"))
        self.refused(
            "NetcfgSubnetRangesOverlap", "network", "vnet", "subnet", "create", *of_vnet, "--name", "again",
            "--address-prefixes", "10.0.1.128/25",
        )
        guarded = az("network", "vnet", "subnet", "update", *of_vnet, "--name", "more", "--nsg", "nsg")
        self.assertTrue(guarded["networkSecurityGroup"]["id"].endswith("/networkSecurityGroups/nsg"))
        subnets = az("network", "vnet", "subnet", "list", *of_vnet)
        self.assertEqual([subnet["name"] for subnet in subnets], ["nodes", "more"])
        az("network", "vnet", "subnet", "delete", *of_vnet, "--name", "more")
        self.refused("NotFound", "network", "vnet", "subnet", "show", *of_vnet, "--name", "more")
        az("network", "vnet", "update", *of_group, "--name", "vnet", "--set", "tags.a=b")
        shown = az("network", "vnet", "show", *of_group, "--name", "vnet")
        self.assertEqual(([subnet["name"] for subnet in shown["subnets"]], shown["tags"]), (["nodes"], {"a": "b"}))

        address = az("network", "public-ip", "create", *of_group, "--name", "pip", "--sku", "Standard", "--zone", 1, 2, 3)
        self.assertRegex(address["publicIp"]["ipAddress"], r"^127\.\d+\.\d+\.\d+$")
        self.assertEqual(address["publicIp"]["zones"], ["1", "2", "3"])
        nic = az(
            "network", "nic", "create", *of_group, "--name", "nic", "--vnet-name", "vnet", "--subnet", "nodes",
            "--public-ip-address", "pip", "--network-security-group", "nsg", "--private-ip-address", "10.0.0.10",
        )["NewNIC"]
        configuration = nic["ipConfigurations"][0]
        self.assertEqual(configuration["privateIPAddress"], "10.0.0.10")
        self.assertEqual(configuration["privateIPAllocationMethod"], "Static")
        self.assertRegex(nic["macAddress"], r"^00-0D-3A(-[0-9A-F]{2}){3}$")
        shown = az("network", "public-ip", "show", *of_group, "--name", "pip")
        self.assertEqual(shown["ipConfiguration"]["id"], configuration["id"])
        updated = az("network", "nic", "update", *of_group, "--name", "nic", "--set", "tags.a=b")
        self.assertEqual((updated["tags"], updated["macAddress"]), ({"a": "b"}, nic["macAddress"]))
        self.assertEqual([each["name"] for each in az("network", "nic", "list", *of_group)], ["nic"])
        self.assertEqual([each["name"] for each in az("network", "public-ip", "list", *of_group)], ["pip"])

        self.refused("PublicIPAddressCannotBeDeleted", "network", "public-ip", "delete", *of_group, "--name", "pip")
        self.refused("InUseNetworkSecurityGroupCannotBeDeleted", "network", "nsg", "delete", *of_group, "--name", "nsg")
        self.refused("InUseSubnetCannotBeDeleted", "network", "vnet", "delete", *of_group, "--name", "vnet")
        az("network", "nic", "delete", *of_group, "--name", "nic")
        az("network", "public-ip", "delete", *of_group, "--name", "pip")
        az("network", "vnet", "delete", *of_group, "--name", "vnet")
        az("network", "nsg", "delete", *of_group, "--name", "nsg")
        self.assertEqual(az("network", "vnet", "list", *of_group), [])


class Resources(Case):
    def test_resources_and_tags(self):
        group = self.group()
        az("network", "nsg", "create", "--resource-group", group, "--name", "nsg", "--tags", "run=7")
        az("network", "nsg", "create", "--resource-group", group, "--name", "other")
        nsg = twin.id(group, "Microsoft.Network/networkSecurityGroups/nsg")
        self.assertEqual([each["name"] for each in az("resource", "list", "--tag", "run=7")], ["nsg"])
        self.assertEqual([each["name"] for each in az("resource", "list", "--resource-group", group)], ["nsg", "other"])
        shown = az("resource", "show", "--ids", nsg)
        self.assertEqual((shown["name"], shown["tags"]), ("nsg", {"run": "7"}))
        tags = lambda *arguments: az("tag", *arguments)["properties"]["tags"]
        self.assertEqual(tags("update", "--resource-id", nsg, "--operation", "merge", "--tags", "a=b"), {"run": "7", "a": "b"})
        self.assertEqual(tags("update", "--resource-id", nsg, "--operation", "delete", "--tags", "run=7"), {"a": "b"})
        self.assertEqual(tags("update", "--resource-id", nsg, "--operation", "replace", "--tags", "c=d"), {"c": "d"})
        self.assertEqual(tags("list", "--resource-id", nsg), {"c": "d"})
        of_group = f"/subscriptions/{twin.subscription}/resourceGroups/{group}"
        self.assertEqual(tags("create", "--resource-id", of_group, "--tags", "e=f"), {"e": "f"})
        self.assertEqual(az("group", "show", "--name", group)["tags"], {"e": "f"})
        counted = {tag["tagName"]: tag["count"]["value"] for tag in az("tag", "list")}
        self.assertEqual((counted["c"], counted["e"]), (1, 1))
        az("tag", "delete", "--resource-id", of_group, "--yes")
        self.assertEqual(az("group", "show", "--name", group)["tags"], {})
        az("resource", "tag", "--ids", nsg, "--tags", "g=h")
        self.assertEqual(az("network", "nsg", "show", "--ids", nsg)["tags"], {"g": "h"})
        az("resource", "delete", "--ids", nsg)
        self.refused("ResourceNotFound", "network", "nsg", "show", "--ids", nsg)

    def test_locks(self):
        group = self.group()
        az("network", "nsg", "create", "--resource-group", group, "--name", "nsg")
        lock = az("lock", "create", "--resource-group", group, "--name", "keep", "--lock-type", "CanNotDelete", "--notes", "why")
        self.assertEqual((lock["level"], lock["notes"]), ("CanNotDelete", "why"))
        self.assertEqual([each["name"] for each in az("lock", "list", "--resource-group", group)], ["keep"])
        self.refused("ScopeLocked", "network", "nsg", "delete", "--resource-group", group, "--name", "nsg")
        self.refused("ScopeLocked", "group", "delete", "--name", group, "--yes")
        az("lock", "delete", "--resource-group", group, "--name", "keep")
        az("network", "nsg", "delete", "--resource-group", group, "--name", "nsg")

if __name__ == "__main__":
    unittest.main()
