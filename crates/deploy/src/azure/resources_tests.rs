//! Snapshots of the bodies that we send.

use insta::assert_snapshot;

use super::*;

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

fn tags() -> Tags {
    resource_tags("k0rdent-abcd1234", "ada", 3, Some(("k0s-worker-1", "worker")))
}

fn ids() -> Ids {
    Ids::new("sub", "k0rdent-abcd1234-resgrp")
}

#[test]
fn identifiers() {
    assert_snapshot!(ids().subnet("net", "sub"), @"/subscriptions/sub/resourceGroups/k0rdent-abcd1234-resgrp/providers/Microsoft.Network/virtualNetworks/net/subnets/sub");
}

#[test]
fn group_and_key() {
    let tags = group_tags("k0rdent-abcd1234", "", "2026-11-23T17:00:00Z");
    assert_snapshot!(resource_group("westus2", &tags), @r#"{"location":"westus2","tags":{"cluster-id":"k0rdent-abcd1234","created":"2026-11-23T17:00:00Z","created-by":"k0rdentctl","k0rdent-cluster-id":"k0rdent-abcd1234"}}"#);
    assert_snapshot!(ssh_key("westus2", &Tags::new(), "ssh-ed25519 AAAA me\n"), @r#"{"location":"westus2","properties":{"publicKey":"ssh-ed25519 AAAA me"},"tags":{}}"#);
}

#[test]
fn security_group() {
    let body = network_security_group("westus2", &Tags::new(), 51820, &["192.0.2.1/32".to_owned()]);
    assert_snapshot!(pretty(&body), @r#"
    {
      "location": "westus2",
      "properties": {
        "securityRules": [
          {
            "name": "AllowWireGuard",
            "properties": {
              "access": "Allow",
              "destinationAddressPrefix": "*",
              "destinationPortRange": "51820",
              "direction": "Inbound",
              "priority": 1000,
              "protocol": "Udp",
              "sourceAddressPrefix": "*",
              "sourcePortRange": "*"
            }
          },
          {
            "name": "AllowSSH",
            "properties": {
              "access": "Allow",
              "destinationAddressPrefix": "*",
              "destinationPortRange": "22",
              "direction": "Inbound",
              "priority": 1010,
              "protocol": "Tcp",
              "sourceAddressPrefixes": [
                "192.0.2.1/32"
              ],
              "sourcePortRange": "*"
            }
          }
        ]
      },
      "tags": {}
    }
    "#);
    let ranges = ["192.0.2.1/32".to_owned()];
    let made = network_security_group("westus2", &Tags::new(), 51820, &ranges);
    assert_eq!(rule_trouble(&made, 51820, &ranges), None, "what is made is what is looked for");
}

#[test]
fn network() {
    let guard = ids().of(Kind::NetworkSecurityGroup, "guard");
    let body = virtual_network("westus2", &Tags::new(), "10.0.0.0/16", ("subnet", "10.0.1.0/24"), &guard);
    assert_snapshot!(pretty(&body), @r#"
    {
      "location": "westus2",
      "properties": {
        "addressSpace": {
          "addressPrefixes": [
            "10.0.0.0/16"
          ]
        },
        "subnets": [
          {
            "name": "subnet",
            "properties": {
              "addressPrefix": "10.0.1.0/24",
              "networkSecurityGroup": {
                "id": "/subscriptions/sub/resourceGroups/k0rdent-abcd1234-resgrp/providers/Microsoft.Network/networkSecurityGroups/guard"
              }
            }
          }
        ]
      },
      "tags": {}
    }
    "#);
}

#[test]
fn address_and_interface() {
    assert_snapshot!(pretty(&public_ip("westus2", &tags(), true)), @r#"
    {
      "location": "westus2",
      "properties": {
        "deleteOption": "Delete",
        "idleTimeoutInMinutes": 4,
        "publicIPAddressVersion": "IPv4",
        "publicIPAllocationMethod": "Static"
      },
      "sku": {
        "name": "Standard",
        "tier": "Regional"
      },
      "tags": {
        "k0rdent-cluster-id": "k0rdent-abcd1234",
        "k0rdent-node": "k0s-worker-1",
        "k0rdent-role": "worker",
        "k0rdent-run-epoch": "3",
        "owner": "ada"
      },
      "zones": [
        "1",
        "2",
        "3"
      ]
    }
    "#);
    let address = ids().of(Kind::PublicIp, "k0s-worker-1-pip");
    let body = network_interface("westus2", &Tags::new(), "SUBNET", Ipv4Addr::new(10, 0, 1, 4), &address);
    assert_snapshot!(pretty(&body), @r#"
    {
      "location": "westus2",
      "properties": {
        "enableAcceleratedNetworking": false,
        "ipConfigurations": [
          {
            "name": "primary",
            "properties": {
              "primary": true,
              "privateIPAddress": "10.0.1.4",
              "privateIPAllocationMethod": "Static",
              "publicIPAddress": {
                "id": "/subscriptions/sub/resourceGroups/k0rdent-abcd1234-resgrp/providers/Microsoft.Network/publicIPAddresses/k0s-worker-1-pip",
                "properties": {
                  "deleteOption": "Delete"
                }
              },
              "subnet": {
                "id": "SUBNET"
              }
            }
          }
        ]
      },
      "tags": {}
    }
    "#);
}

#[test]
fn machine() {
    let mut machine = VirtualMachine {
        name: "k0s-worker-1",
        location: "westus2",
        zone: Some(2),
        size: "Standard_D4s_v5",
        spot: Some(Eviction::Deallocate),
        image: &Image::try_from("Debian:debian-12:12-gen2:latest".to_owned()).unwrap(),
        image_version: None,
        disk_name: "k0s-worker-1-osdisk",
        disk_gb: 64,
        username: "k0rdent",
        public_key: "ssh-ed25519 AAAA\n",
        custom_data: "#cloud-config\n",
        network_interface_id: "NIC",
        tags: &tags(),
    };
    assert_snapshot!(pretty(&virtual_machine(&machine)), @r#"
    {
      "location": "westus2",
      "properties": {
        "billingProfile": {
          "maxPrice": -1
        },
        "diagnosticsProfile": {
          "bootDiagnostics": {
            "enabled": true
          }
        },
        "evictionPolicy": "Deallocate",
        "hardwareProfile": {
          "vmSize": "Standard_D4s_v5"
        },
        "networkProfile": {
          "networkInterfaces": [
            {
              "id": "NIC",
              "properties": {
                "deleteOption": "Delete",
                "primary": true
              }
            }
          ]
        },
        "osProfile": {
          "adminUsername": "k0rdent",
          "computerName": "k0s-worker-1",
          "customData": "I2Nsb3VkLWNvbmZpZwo=",
          "linuxConfiguration": {
            "disablePasswordAuthentication": true,
            "provisionVMAgent": true,
            "ssh": {
              "publicKeys": [
                {
                  "keyData": "ssh-ed25519 AAAA",
                  "path": "/home/k0rdent/.ssh/authorized_keys"
                }
              ]
            }
          }
        },
        "priority": "Spot",
        "storageProfile": {
          "imageReference": {
            "offer": "debian-12",
            "publisher": "Debian",
            "sku": "12-gen2",
            "version": "latest"
          },
          "osDisk": {
            "caching": "ReadWrite",
            "createOption": "FromImage",
            "deleteOption": "Delete",
            "diskSizeGB": 64,
            "managedDisk": {
              "storageAccountType": "Premium_LRS"
            },
            "name": "k0s-worker-1-osdisk"
          }
        }
      },
      "tags": {
        "k0rdent-cluster-id": "k0rdent-abcd1234",
        "k0rdent-node": "k0s-worker-1",
        "k0rdent-role": "worker",
        "k0rdent-run-epoch": "3",
        "owner": "ada"
      },
      "zones": [
        "2"
      ]
    }
    "#);
    machine.spot = None;
    assert!(virtual_machine(&machine)["properties"].get("priority").is_none());
}

#[test]
fn premium_disks_are_for_sizes_with_an_s() {
    for (size, premium) in [
        ("Standard_B2s", true),
        ("Standard_D4s_v5", true),
        ("Standard_D4pls_v6", true),
        ("Standard_DS2_v2", true),
        ("Standard_D4_v5", false),
        ("Standard_A4_v2", false),
    ] {
        assert_eq!(disk_type(size) == "Premium_LRS", premium, "{size}");
    }
}

#[test]
fn an_own_image_and_no_zone_look_like_this() {
    let own = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/own/images/debian";
    let image = |text: String| Image::try_from(text).unwrap();
    assert_eq!(image_reference(&image(own.to_owned()), None), json!({"id": own}));
    assert_eq!(image_reference(&image(own.to_owned()), Some("1.2.3")), json!({"id": format!("{own}/versions/1.2.3")}));
    let fixed = image(format!("{own}/versions/1.0.0"));
    assert_eq!(image_reference(&fixed, None), json!({"id": format!("{own}/versions/1.0.0")}));
    assert!(public_ip("westcentralus", &tags(), false).get("zones").is_none());
}
