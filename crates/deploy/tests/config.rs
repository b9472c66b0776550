//! The configuration as its users meet it: files that load, and every complaint at its place.

use deploy::{
    config::{Architecture, Config, Problem, Severity, TEMPLATES, load, reference, render, template},
    environment::sha256,
};

fn complaints(text: &str) -> String {
    let problems = load(text).map_or_else(|problems| problems, |loaded| loaded.warnings);
    let line = |problem: &Problem| match problem.severity {
        Severity::Error => problem.to_string(),
        Severity::Warning => format!("(warning) {problem}"),
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn loaded(text: &str) -> Config {
    load(text).unwrap_or_else(|problems| panic!("{problems:?}")).config
}

#[test]
fn the_files_of_the_scripts_load_unmodified() {
    let files = [
        ("k0rdent-default", include_str!("data/origin/k0rdent-default.yaml")),
        ("minimal", include_str!("data/origin/minimal.yaml")),
        ("development", include_str!("data/origin/development.yaml")),
        ("production", include_str!("data/origin/production.yaml")),
    ];
    for (name, text) in files {
        let loaded = load(text).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        // Their keys that nobody follows are named, and what is wrong in any file.
        let wrong = loaded.warnings.iter().filter(|problem| !problem.message.starts_with("has no effect: "));
        let wrong: Vec<&str> = wrong.map(|problem| problem.key.as_str()).collect();
        assert_eq!(wrong, if name == "production" { &["network.wireguard_network"][..] } else { &[] }, "{name}");
    }
}

#[test]
fn the_default_file_of_the_scripts_has_our_defaults() {
    let mut theirs = loaded(include_str!("data/origin/k0rdent-default.yaml"));
    theirs.metadata.description = String::new();
    assert_eq!(theirs, loaded(""));
}

#[test]
fn templates_and_examples_load_without_complaint() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let names = ["minimal", "single-node", "development", "production", "large", "huge"];
    let mut texts: Vec<_> = TEMPLATES.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    texts.extend(names.map(|name| (name, fs_err::read_to_string(format!("{examples}/{name}.yaml")).unwrap())));
    for (name, text) in &texts {
        let warnings = load(text).unwrap_or_else(|problems| panic!("{name}: {problems:?}")).warnings;
        assert_eq!(warnings, [], "{name}");
        assert!(template(name).is_none_or(|template| template == text), "{name}: example and template differ");
    }
    assert_eq!(template("nonsense"), None);
}

#[test]
fn what_is_rendered_loads_again() {
    for text in
        ["", template("production-arm64-spot").unwrap(), "kof: {mothership: {collectors: {global: {a: [1, {b: no}]}}}}"]
    {
        let config = loaded(text);
        assert_eq!(loaded(&render(&config)), config);
    }
    let text = render(&loaded("azure: {ssh_allowed_from: [203.0.113.0/24]}"));
    assert!(text.contains("vm_image: Debian:debian-12:12-gen2:latest"), "{text}");
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text = "\
metadata:
  ownr: alice
azure:
  locatoin: westus2
  os_disk_gb: big
cluster:
  controllers:
    count: 2
    zones: [1, 4, 1]
  workers: 3
network:
  vnet_prefix: 10.0.0.1/16
  wireguard_network: 10.244.7.0/24
kof:
  enabled: maybe
worker:
  count: 3
azure:
  location: eastus
protect: yes
";
    insta::assert_snapshot!(complaints(text), @r#"
    2:3: metadata.ownr: unknown key; did you mean metadata.owner?
    4:3: azure.locatoin: unknown key; did you mean azure.location?
    5:15: azure.os_disk_gb: expected a whole number, found "big"
    (warning) 8:12: cluster.controllers.count: 2 controllers survive no more failures than 1; take an odd number
    9:16: cluster.controllers.zones[1]: there is no zone 4; Azure has 1, 2 and 3
    9:19: cluster.controllers.zones[2]: zone 1 is there twice
    10:12: cluster.workers: expected a mapping, found "3"
    12:16: network.vnet_prefix: 10.0.0.1/16 has bits set after its prefix; write 10.0.0.0/16
    13:22: network.wireguard_network: 10.244.7.0/24 overlaps with network.pod_cidr 10.244.0.0/16
    15:12: kof.enabled: expected true or false, found "maybe"
    16:1: worker: unknown key; did you mean vm_sizing.worker?
    18:1: azure: stands twice; the first is on line 3
    20:10: protect: expected true or false, found "yes"
    "#);
}

#[test]
fn every_check_says_what_is_wrong() {
    let cases = [
        "metadata: {owner: 'a<b'}",
        "azure: {subscription_id: my-subscription, tenant_id: 'x y'}",
        "azure: {location: West US 2}",
        "azure: {vm_image: 'Debian:debian-12'}",
        "azure: {vm_priority: cheap, eviction_policy: keep}",
        "azure: {os_disk_gb: 8}",
        "azure: {os_disk_gb: 99999999999999999999999}",
        "azure: {ssh_allowed_from: [203.0.113.7, 0.0.0.0/0]}",
        "azure: {ssh_allowed_from: [0.0.0.0/0]}",
        "network: {vnet_prefix: nonsense}",
        "network: {vnet_prefix: 10.1.0.0/16}",
        "network: {pod_cidr: 10.100.0.0/16}",
        "network: {vnet_prefix: 10.240.0.0/12, subnet_prefix: 10.240.0.0/24}",
        "network: {wireguard_network: 169.254.0.0/24}",
        "network: {service_cidr: 192.168.0.0/16}",
        "network: {wireguard_network: 172.32.32.0/24}",
        "network: {wireguard_network: 192.168.100.0/28}\ncluster: {workers: {count: 4}}",
        "network: {subnet_prefix: 10.0.1.0/29}\ncluster: {workers: {count: 3}}",
        "cluster: {workers: {count: 300}}",
        "network: {mesh_port: 0}",
        "network: {mesh_port: 4789}",
        "network: {mesh_port: 31000}",
        "network: {calico_mtu: 500}",
        "network: {calico_mtu: 1500}",
        "vm_sizing: {controller: {size: Standard_D4pls_v6}}",
        "azure: {vm_image: 'Debian:debian-12:12-arm64:latest'}\nvm_sizing: {controller: {size: Standard_D2ps_v5}}",
        "vm_sizing: {worker: {size: D2s_v5}}",
        "cluster: {controllers: {count: 0}}",
        "cluster: {controllers: {count: 4}}",
        "cluster: {controllers: {count: -1}}",
        "cluster: {controllers: {count: 70000}}",
        "cluster: {workers: {count: 0}}",
        "cluster: {workers: {count: 0}, controllers: {run_workloads: false}}",
        "azure: {vm_image: /subscriptions/s/images/x}\ncluster: {workers: {zones: []}}",
        "cluster: {workers: {zones: 1}}",
        "ssh: {username: Admin}",
        "ssh: {username: root}",
        "software: {k0s: {version: 1.33.2}}",
        "software: {k0s: {download_url: 'http://example.com/k0s'}}",
        "software: {k0s: {binary: k0s, airgap_bundle: ./images.tar}}",
        "software: {k0s: {binary: /opt/k0s, download_url: 'https://example.com/k0s'}}",
        "software: {k0rdent: {version: v1.1.1}}",
        "software: {k0rdent: {version: latest}}",
        "software: {k0rdent: {registry: ghcr.io/k0rdent/kcm}}",
        "software: {k0rdent: {namespace: KCM_system}}",
        "software: {k0rdent: {providers: [capz, 'C A']}}",
        "timeouts: {ssh_connect: 0}",
        "kof: {enabled: true, regional: {domain: '', admin_email: nobody, cluster_name: X}}",
        "azure: westus2",
        "[1, 2]",
        "azure: [",
        "---\n{}\n---\n{}",
        "azure: {location: eastus}\nazure: {location: eastus}",
        "count: 3",
        "completely_else: 3",
        "azure: {tags: {team: storage, cost: 007, empty: }}",
        "azure: {tags: {'a<b': x, Microsoft-x: x, AzureThing: x, Team: x, team: y, owner: me, list: [1]}}",
        "azure: {tags: storage}",
        "metadata: {version: 1.1, schema: k0sctl}",
        "metadata: {version: '2'}",
        "metadata: {version: 0.9}",
        "metadata: {version: latest}",
        "metadata: {version: 1, schema: k0rdent-config}\nkof: {enabled: false}",
        "kof: {enabled: true, regional: {domain: example.com}}\ntimeouts: {verification_retries: 3}",
        "kof: {regional: {location: eastus}}\nssh: {key_comment: x, bastions: []}\nazure: {eviction_policy: Delete}",
        "cluster: {workers: {count: 0, zones: [2]}, controllers: {count: 3}}\nvm_sizing: {worker: {size: Standard_B2s}}",
        "a: &a [*a]",
    ];
    let shown = cases.map(|case| format!("# {}\n{}", case.replace('\n', "; "), complaints(case))).join("\n");
    insta::assert_snapshot!(shown, @r#"
    # metadata: {owner: 'a<b'}
    1:19: metadata.owner: '<' cannot be in a tag; letters, digits, spaces and ._-:@+ can
    # azure: {subscription_id: my-subscription, tenant_id: 'x y'}
    1:26: azure.subscription_id: "my-subscription" is not an id such as 00000000-0000-0000-0000-000000000000; a name will not do
    1:54: azure.tenant_id: "x y" is neither a tenant's id nor its domain
    # azure: {location: West US 2}
    1:19: azure.location: "West US 2" is not the name of a region; write westus2
    (warning) 1:19: azure.location: no region West US 2 is known here; `az account list-locations` names all
    # azure: {vm_image: 'Debian:debian-12'}
    1:19: azure.vm_image: "Debian:debian-12" is not publisher:offer:sku:version, as in Debian:debian-12:12-gen2:latest
    # azure: {vm_priority: cheap, eviction_policy: keep}
    1:22: azure.vm_priority: "cheap" is not Regular or Spot
    1:46: azure.eviction_policy: "keep" is not Deallocate or Delete
    # azure: {os_disk_gb: 8}
    1:21: azure.os_disk_gb: a disk has 30 to 4095 GiB
    # azure: {os_disk_gb: 99999999999999999999999}
    1:21: azure.os_disk_gb: 99999999999999999999999 is too large; the most is 65535
    # azure: {ssh_allowed_from: [203.0.113.7, 0.0.0.0/0]}
    1:28: azure.ssh_allowed_from[0]: 203.0.113.7 is one address; write it as 203.0.113.7/32
    # azure: {ssh_allowed_from: [0.0.0.0/0]}
    (warning) 1:28: azure.ssh_allowed_from[0]: the whole internet may try to log in; leave the list empty for your own address only
    # network: {vnet_prefix: nonsense}
    1:24: network.vnet_prefix: "nonsense" is not a range in CIDR notation, such as 10.0.0.0/16
    # network: {vnet_prefix: 10.1.0.0/16}
    1:24: network.vnet_prefix: 10.0.1.0/24 is not inside network.vnet_prefix 10.1.0.0/16
    # network: {pod_cidr: 10.100.0.0/16}
    1:21: network.pod_cidr: 10.100.0.0/16 overlaps with network.service_cidr 10.96.0.0/12
    # network: {vnet_prefix: 10.240.0.0/12, subnet_prefix: 10.240.0.0/24}
    1:24: network.vnet_prefix: 10.240.0.0/12 overlaps with network.pod_cidr 10.244.0.0/16
    # network: {wireguard_network: 169.254.0.0/24}
    1:30: network.wireguard_network: 169.254.0.0/24 has another use on every host; take a private range
    # network: {service_cidr: 192.168.0.0/16}
    1:25: network.service_cidr: 192.168.0.0/16 overlaps with network.wireguard_network 192.168.100.0/24
    # network: {wireguard_network: 172.32.32.0/24}
    (warning) 1:30: network.wireguard_network: 172.32.32.0/24 is not private: addresses there belong to somebody on the internet, whom you could not reach; take a range of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10
    # network: {wireguard_network: 192.168.100.0/28}; cluster: {workers: {count: 4}}
    1:30: network.wireguard_network: 192.168.100.0/28 has no room for 5 machines (machines start at the 11th address); give it a /27
    # network: {subnet_prefix: 10.0.1.0/29}; cluster: {workers: {count: 3}}
    1:26: network.subnet_prefix: 10.0.1.0/29 has no room for 4 machines (Azure keeps 5 addresses); give it a /28
    # cluster: {workers: {count: 300}}
    1:28: cluster.workers.count: network.wireguard_network 192.168.100.0/24 has no room for 301 machines (machines start at the 11th address); give it a /23
    1:28: cluster.workers.count: network.subnet_prefix 10.0.1.0/24 has no room for 301 machines (Azure keeps 5 addresses); give it a /23
    (warning) 1:28: cluster.workers.count: network.pod_cidr 10.244.0.0/16 has no room for 301 machines (each takes a /24); give it a /15
    # network: {mesh_port: 0}
    1:22: network.mesh_port: a port is a number from 1 to 65535
    # network: {mesh_port: 4789}
    1:22: network.mesh_port: 4789 belongs to the pod network (VXLAN)
    # network: {mesh_port: 31000}
    (warning) 1:22: network.mesh_port: Kubernetes gives the ports from 30000 to 32767 to services (NodePort); take another
    # network: {calico_mtu: 500}
    1:23: network.calico_mtu: a packet has at least 576 bytes
    # network: {calico_mtu: 1500}
    (warning) 1:23: network.calico_mtu: Azure's packets are 1500 bytes and VXLAN takes 50 of them; more than 1450 may be lost
    # vm_sizing: {controller: {size: Standard_D4pls_v6}}
    1:32: vm_sizing.controller.size: Standard_D4pls_v6 is Arm64, but azure.vm_image Debian:debian-12:12-gen2:latest is x64; change one of them
    # azure: {vm_image: 'Debian:debian-12:12-arm64:latest'}; vm_sizing: {controller: {size: Standard_D2ps_v5}}
    1:19: azure.vm_image: vm_sizing.worker.size Standard_B2s is x64, but azure.vm_image Debian:debian-12:12-arm64:latest is Arm64; change one of them
    # vm_sizing: {worker: {size: D2s_v5}}
    1:28: vm_sizing.worker.size: "D2s_v5" is not a machine size of Azure, such as Standard_B2s
    # cluster: {controllers: {count: 0}}
    1:32: cluster.controllers.count: there must be at least 1 controller
    # cluster: {controllers: {count: 4}}
    (warning) 1:32: cluster.controllers.count: 4 controllers survive no more failures than 3; take an odd number
    # cluster: {controllers: {count: -1}}
    1:32: cluster.controllers.count: expected a whole number, found "-1"
    # cluster: {controllers: {count: 70000}}
    1:32: cluster.controllers.count: 70000 is too large; the most is 65535
    # cluster: {workers: {count: 0}}

    # cluster: {workers: {count: 0}, controllers: {run_workloads: false}}
    1:61: cluster.controllers.run_workloads: nothing would run workloads: there are no workers and controllers may not
    # azure: {vm_image: /subscriptions/s/images/x}; cluster: {workers: {zones: []}}
    1:19: azure.vm_image: "/subscriptions/s/images/x" is not the id of an image in a gallery, as in /subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.Compute/galleries/GALLERY/images/IMAGE; `az sig image-definition show` prints it
    # cluster: {workers: {zones: 1}}
    1:28: cluster.workers.zones: expected a list, each a whole number, found "1"
    # ssh: {username: Admin}
    1:17: ssh.username: "Admin" is not a user name: up to 32 of a-z, 0-9, - and _, a letter or _ first
    # ssh: {username: root}
    1:17: ssh.username: Azure does not allow the user name root; take another, such as k0rdent
    # software: {k0s: {version: 1.33.2}}
    1:27: software.k0s.version: "1.33.2" is not a release of k0s, such as v1.33.2+k0s.0
    # software: {k0s: {download_url: 'http://example.com/k0s'}}
    1:32: software.k0s.download_url: "http://example.com/k0s" is not an https address
    1:32: software.k0s.download_url: nobody says what is there; say software.k0s.sha256.amd64 (or arm64) too, which `curl -fsSL http://example.com/k0s | sha256sum` prints where you trust what it downloads
    # software: {k0s: {binary: k0s, airgap_bundle: ./images.tar}}
    1:26: software.k0s.binary: "k0s" is not an absolute path; later runs read the file again, wherever they start
    1:46: software.k0s.airgap_bundle: "./images.tar" is not an absolute path; later runs read the file again, wherever they start
    # software: {k0s: {binary: /opt/k0s, download_url: 'https://example.com/k0s'}}
    1:26: software.k0s.binary: the binary is either uploaded or downloaded; remove this or software.k0s.download_url
    1:50: software.k0s.download_url: nobody says what is there; say software.k0s.sha256.amd64 (or arm64) too, which `curl -fsSL https://example.com/k0s | sha256sum` prints where you trust what it downloads
    # software: {k0rdent: {version: v1.1.1}}
    1:31: software.k0rdent.version: "v1.1.1" has a v too many; write 1.1.1
    # software: {k0rdent: {version: latest}}
    1:31: software.k0rdent.version: "latest" is not a version, such as 1.1.1
    # software: {k0rdent: {registry: ghcr.io/k0rdent/kcm}}
    1:32: software.k0rdent.registry: "ghcr.io/k0rdent/kcm" is not a chart's OCI address, such as oci://ghcr.io/k0rdent/kcm/charts/kcm
    # software: {k0rdent: {namespace: KCM_system}}
    1:33: software.k0rdent.namespace: "KCM_system" is not a name in Kubernetes: up to 63 of a-z, 0-9 and -, not - first or last
    # software: {k0rdent: {providers: [capz, 'C A']}}
    1:40: software.k0rdent.providers[1]: "C A" is not a name in Kubernetes: up to 63 of a-z, 0-9 and -, not - first or last
    # timeouts: {ssh_connect: 0}
    1:25: timeouts.ssh_connect: must be more than 0
    # kof: {enabled: true, regional: {domain: '', admin_email: nobody, cluster_name: X}}
    (warning) 1:16: kof.enabled: has no effect: this version does not install KOF; nor has kof.regional.cluster_name, kof.regional.domain, kof.regional.admin_email
    1:41: kof.regional.domain: KOF needs a DNS domain, as in regional.example.com
    1:58: kof.regional.admin_email: KOF needs an e-mail address for its certificates
    1:80: kof.regional.cluster_name: "X" is not a name in Kubernetes: up to 63 of a-z, 0-9 and -, not - first or last
    # azure: westus2
    1:8: azure: expected a mapping, found "westus2"
    # [1, 2]
    1:1: expected a mapping, found a list
    # azure: [
    1:8: not valid YAML: unclosed bracket '['
    # ---; {}; ---; {}
    3:1: a second document starts here; one file holds one configuration
    # azure: {location: eastus}; azure: {location: eastus}
    2:1: azure: stands twice; the first is on line 1
    # count: 3
    1:1: count: unknown key; did you mean cluster.workers.count?
    # completely_else: 3
    1:1: completely_else: unknown key
    # azure: {tags: {team: storage, cost: 007, empty: }}

    # azure: {tags: {'a<b': x, Microsoft-x: x, AzureThing: x, Team: x, team: y, owner: me, list: [1]}}
    1:16: azure.tags.a<b: '<' cannot be in the name of a tag
    1:26: azure.tags.Microsoft-x: names of tags that begin with microsoft are Azure's own
    1:42: azure.tags.AzureThing: names of tags that begin with azure are Azure's own
    1:66: azure.tags.team: stands twice: Azure does not tell upper case from lower case in the names of tags
    (warning) 1:75: azure.tags.owner: has no effect: the tag is k0rdentctl's own
    1:92: azure.tags.list: expected text, found a list
    # azure: {tags: storage}
    1:15: azure.tags: expected a mapping of names to texts, found "storage"
    # metadata: {version: 1.1, schema: k0sctl}
    1:21: metadata.version: 1.1 is newer than this program, which knows 1.0; install a newer k0rdentctl
    1:34: metadata.schema: "k0sctl" is another layout; this program reads k0rdent-config
    # metadata: {version: '2'}
    1:21: metadata.version: 2 is newer than this program, which knows 1.0; install a newer k0rdentctl
    # metadata: {version: 0.9}
    (warning) 1:21: metadata.version: 0.9 is older than 1.0, as which the file is read; write 1.0
    # metadata: {version: latest}
    1:21: metadata.version: "latest" is not the version of a layout, such as 1.0
    # metadata: {version: 1, schema: k0rdent-config}; kof: {enabled: false}

    # kof: {enabled: true, regional: {domain: example.com}}; timeouts: {verification_retries: 3}
    (warning) 1:16: kof.enabled: has no effect: this version does not install KOF; nor has kof.regional.domain
    (warning) 2:34: timeouts.verification_retries: has no effect: it is tried until timeouts.cloud_init_timeout
    # kof: {regional: {location: eastus}}; ssh: {key_comment: x, bastions: []}; azure: {eviction_policy: Delete}
    (warning) 1:28: kof.regional.location: has no effect: this version does not install KOF
    (warning) 2:20: ssh.key_comment: has no effect: the key's comment names its cluster
    (warning) 3:26: azure.eviction_policy: has no effect: Azure takes back Spot machines only
    # cluster: {workers: {count: 0, zones: [2]}, controllers: {count: 3}}; vm_sizing: {worker: {size: Standard_B2s}}
    (warning) 1:28: cluster.workers.count: without workers, the controllers run workloads too; say so with cluster.controllers.run_workloads: true
    (warning) 2:28: vm_sizing.worker.size: has no effect: there are no workers; nor has cluster.workers.zones
    # a: &a [*a]
    1:8: an alias cannot stand inside what it names
    "#);
}

#[test]
fn forms_that_mean_the_same_are_accepted() {
    for text in
        ["", "# nothing\n", "azure:\n", "azure: null", "{}", "azure:\n  location: ~\n", "azure: {subscription_id: ''}"]
    {
        assert_eq!(loaded(text), loaded(""), "{text:?}");
    }
    let config = loaded(
        "azure: {vm_priority: spot, eviction_policy: DELETE}\n\
         cluster: {controllers: {count: '3', zones: &zones [1, 2]}, workers: {zones: *zones}}\n\
         metadata: {version: 1.0, owner: 12}\nkof: {enabled: True}\nsoftware: {k0s: {version: v1.34.0-rc.1+k0s.1}}",
    );
    assert_eq!(serde_json::to_string(&config.azure.vm_priority).unwrap(), "\"Spot\"");
    assert_eq!((config.cluster.controllers.count, config.cluster.workers.zones), (3, vec![1, 2]));
    assert_eq!((config.metadata.version.as_str(), config.metadata.owner.as_deref()), ("1.0", Some("12")));
    assert!(config.kof.enabled);
}

#[test]
fn merge_keys_bring_in_what_a_mapping_does_not_say_itself() {
    let config = loaded(
        "x-small: &small {size: Standard_D2s_v5}\nx-places: &places {zones: [2, 3], count: 5}\nx-one: &one {count: 1}\n\
         vm_sizing:\n  controller:\n    <<: *small\n  worker: {<<: *small, size: Standard_D4s_v5}\n\
         cluster:\n  controllers: {<<: [*one, *places]}\n  workers:\n    zones: [1]\n    <<: *places\n",
    );
    assert_eq!(config.vm_sizing.controller.size, "Standard_D2s_v5");
    assert_eq!(config.vm_sizing.worker.size, "Standard_D4s_v5", "the mapping's own word counts");
    let (controllers, workers) = (&config.cluster.controllers, &config.cluster.workers);
    assert_eq!((controllers.count, &controllers.zones[..]), (1, &[2, 3][..]), "the first of a list counts");
    assert_eq!((workers.count, &workers.zones[..]), (5, &[1][..]), "wherever `<<` stands");
    let cases = [
        // What is wrong is where it is written.
        "x-a: &a\n  siez: Standard_B2s\nvm_sizing:\n  worker:\n    <<: *a\n",
        "x-a: &a\n  count: many\ncluster:\n  workers:\n    <<: *a\n",
        "cluster: {workers: {<<: 3}}",
        "cluster: {workers: {<<: [{count: 1}, 3]}}",
        "cluster: {workers: {'<<': {count: 1}}}",
        "cluster: {workers: {<<: , count: 2}}",
        "cluster: {workers: {<<: *nowhere}}",
        "cluster: {x-more: {}}",
    ];
    let shown = cases.map(|case| format!("# {}\n{}", case.replace('\n', "; "), complaints(case))).join("\n");
    insta::assert_snapshot!(shown, @r#"
    # x-a: &a;   siez: Standard_B2s; vm_sizing:;   worker:;     <<: *a; 
    2:3: vm_sizing.worker.siez: unknown key; did you mean vm_sizing.worker.size?
    # x-a: &a;   count: many; cluster:;   workers:;     <<: *a; 
    2:10: cluster.workers.count: expected a whole number, found "many"
    # cluster: {workers: {<<: 3}}
    1:25: `<<` takes a mapping or a list of mappings, as in `<<: *common`
    # cluster: {workers: {<<: [{count: 1}, 3]}}
    1:25: `<<` takes a mapping or a list of mappings, as in `<<: *common`
    # cluster: {workers: {'<<': {count: 1}}}
    1:21: cluster.workers.<<: unknown key; did you mean cluster.workers?
    # cluster: {workers: {<<: , count: 2}}

    # cluster: {workers: {<<: *nowhere}}
    1:25: not valid YAML: while parsing node, found unknown anchor
    # cluster: {x-more: {}}
    1:11: cluster.x-more: unknown key
    "#);
}

#[test]
fn files_that_grow_without_bound_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    assert!(complaints(&bomb).contains("too deep or too large"), "{}", complaints(&bomb));
    let deep = "[".repeat(5_000);
    assert!(complaints(&deep).contains("recursion limit exceeded"), "{}", complaints(&deep));
}

#[test]
fn architectures_follow_from_names() {
    for size in ["Standard_D4pls_v6", "Standard_D2ps_v5", "Standard_B2pts_v2"] {
        assert_eq!(Architecture::of_size(size), Architecture::Arm64, "{size}");
    }
    for size in ["Standard_B2s", "Standard_DS4_v2", "Standard_NP10s", "Standard_HB120-16rs_v3", "Standard_A4_v2", ""] {
        assert_eq!(Architecture::of_size(size), Architecture::X64, "{size}");
    }
}

#[test]
fn the_reference_names_every_key() {
    let reference = reference();
    insta::assert_snapshot!(reference.lines().take(8).collect::<Vec<_>>().join("\n"), @r#"
    | key | default | meaning |
    | --- | --- | --- |
    | `metadata.version` | `"1.0"` | Version of the file's layout. A newer one than this is refused. |
    | `metadata.schema` | `"k0rdent-config"` | Name of the file's layout, which is this one. |
    | `metadata.description` | `""` | What this configuration is for. |
    | `metadata.owner` | not set | Who owns the cluster: the `owner` tag in Azure. Not set: the person who deploys. |
    | `protect` | `false` | Refuse to reset this cluster while true. |
    | `provider` | `"azure"` | Where the machines come from: azure makes them, ssh takes the hosts that are listed. |
    "#);
    assert_eq!(
        reference.lines().skip(2).filter(|line| !line.contains("[].")).count(),
        render(&loaded("")).lines().filter(|line| !line.trim_end().ends_with(':')).count()
    );
    assert_eq!(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

#[test]
fn keys_of_what_does_not_exist_are_named() {
    let line = |key| format!("{{role: controller, address: 192.0.2.{key}, user: ada, key: /k, host_key: {HOST_KEY}}}");
    let text = format!(
        "provider: ssh\nhosts: [{}, {}, {}]\nazure: {{location: eastus}}\nnetwork: {{mesh_port: 5000, calico_mtu: 1400}}\n\
         cluster: {{controllers: {{run_workloads: true}}}}\n",
        line(1),
        line(2),
        line(3)
    );
    insta::assert_snapshot!(complaints(&text), @"
    (warning) 2:78: hosts[0].host_key: 3 hosts cannot have one key, and this is that of hosts[1] and hosts[2] too; on each of them, `cat /etc/ssh/ssh_host_ed25519_key.pub` prints its own
    (warning) 3:19: azure.location: has no effect: the hosts of provider ssh exist already; nor has network.mesh_port
    ");
}

const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJbhYf3pTSCPnbNJqYx9vLTzs7uyHyRR8SOELcDNYiEQ";

#[test]
fn hosts_are_checked_like_everything_else() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJbhYf3pTSCPnbNJqYx9vLTzs7uyHyRR8SOELcDNYiEQ me@here";
    let host = |role: &str, more: &str| format!("{{role: {role}, user: ada, key: /k, host_key: {key}, {more}}}");
    let ssh = |hosts: &[String]| format!("provider: ssh\nhosts: [{}]\n", hosts.join(", "));
    let good = ssh(&[
        host("controller", "address: 192.0.2.1"),
        host("worker", "address: w.example.org, private_address: 10.0.0.2"),
    ]);
    let config = loaded(&good);
    assert_eq!((config.cluster.controllers.count, config.cluster.workers.count), (1, 1));
    assert_eq!(loaded(&render(&config)), config);

    let bad = [
        ssh(&[]),
        ssh(&[host("worker", "address: 192.0.2.1")]),
        ssh(&[host("leader", "address: 192.0.2.1")]),
        ssh(&["{role: controller, adress: 192.0.2.1, host_key: ssh-rsa AAAA}".to_owned()]),
        ssh(&[
            host("controller", "address: 192.0.2.1"),
            host("worker", "address: 192.0.2.1"),
            host("worker", "address: w"),
        ]),
        ssh(&[host("controller", "address: 'a b', port: 0, private_address: 10.96.1.1")]),
        ssh(&["{role: controller, address: 192.0.2.1, user: 'a;b', key: k, host_key: ssh-ed25519 A}".to_owned()]),
        format!("{good}cluster: {{workers: {{count: 3}}}}\n"),
        good.replace("provider: ssh", "provider: azure"),
        good.replace("provider: ssh", "provider: gcp"),
        format!("{good}ssh: {{bastions: [{{address: b}}]}}\n"),
    ];
    let found: Vec<String> = bad
        .iter()
        .map(|text| {
            let problems = deploy::config::load(text).map(|loaded| loaded.warnings).unwrap_or_else(|problems| problems);
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        })
        .collect();
    insta::assert_snapshot!(found.join("\n\n"), @r#"
    2:8: hosts: there must be at least 1 controller

    2:8: hosts: there must be at least 1 controller

    2:16: hosts[0].role: "leader" is not controller or worker

    2:9: hosts[0].address: is missing: Where its SSH answers: an address or a name.
    2:9: hosts[0].user: is missing: Who logs in: somebody who may use sudo without a password.
    2:9: hosts[0].key: is missing: The file of that user's private key: RSA, ECDSA or Ed25519, in a format that OpenSSH reads. Its passphrase, if it has one, is asked for, unless an ssh-agent holds the key. A public key's file stands for a key that an ssh-agent holds.
    2:28: hosts[0].adress: unknown key; did you mean hosts[].address?
    2:57: hosts[0].host_key: is not a line such as `ssh-ed25519 AAAA...`; `cat /etc/ssh/ssh_host_ed25519_key.pub` on the host prints it

    2:58: hosts[0].host_key: 3 hosts cannot have one key, and this is that of hosts[1] and hosts[2] too; on each of them, `cat /etc/ssh/ssh_host_ed25519_key.pub` prints its own
    2:313: hosts[1].address: 192.0.2.1:22 is there twice
    2:469: hosts[2].address: "w" is a name, and Kubernetes needs an address: say private_address

    2:157: hosts[0].address: "a b" is neither an address nor a name
    2:170: hosts[0].port: a port is a number from 1 to 65535
    2:190: hosts[0].private_address: 10.96.1.1 is inside network.service_cidr 10.96.0.0/12

    2:79: hosts[0].host_key: is not a line such as `ssh-ed25519 AAAA...`; `cat /etc/ssh/ssh_host_ed25519_key.pub` on the host prints it

    2:58: hosts[0].host_key: 2 hosts cannot have one key, and this is that of hosts[1] too; on each of them, `cat /etc/ssh/ssh_host_ed25519_key.pub` prints its own
    3:28: cluster.workers.count: 1 are in the list of hosts; leave this out

    2:8: hosts: are for `provider: ssh`

    1:11: provider: "gcp" is not azure or ssh
    2:8: hosts: are for `provider: ssh`

    2:58: hosts[0].host_key: 2 hosts cannot have one key, and this is that of hosts[1] too; on each of them, `cat /etc/ssh/ssh_host_ed25519_key.pub` prints its own
    3:18: ssh.bastions[0].user: is missing: Who logs in.
    3:18: ssh.bastions[0].key: is missing: The file of that user's private key, as for hosts.
    3:18: ssh.bastions[0].host_key: is missing: One of its public keys, as in its /etc/ssh/ssh_host_ed25519_key.pub.
    "#);
}
