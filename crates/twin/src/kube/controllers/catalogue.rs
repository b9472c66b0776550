//! What the kcm chart brings along: CRDs, the release's providers, templates, deployments.

use std::sync::LazyLock;

use serde_json::{Value, json};

macro_rules! definitions {
    ($($name:literal),* $(,)?) => { &[$(include_str!(concat!("../../../data/crds/", $name, ".yaml"))),*] };
}

/// CRDs that k0s installs.
const K0S: &[&str] = definitions![
    "autopilot.k0sproject.io_controlnodes",
    "autopilot.k0sproject.io_plans",
    "autopilot.k0sproject.io_updateconfigs",
    "etcd.k0sproject.io_etcdmembers",
    "helm.k0sproject.io_charts",
    "k0s.k0sproject.io_clusterconfigs",
];

/// CRDs that the kcm chart installs, with that of its Flux.
const KCM: &[&str] = definitions![
    "helm.toolkit.fluxcd.io_helmreleases",
    "k0rdent.mirantis.com_accessmanagements",
    "k0rdent.mirantis.com_clusterauditpolicies",
    "k0rdent.mirantis.com_clusterauthentications",
    "k0rdent.mirantis.com_clusterdatasources",
    "k0rdent.mirantis.com_clusterdeployments",
    "k0rdent.mirantis.com_clusteripamclaims",
    "k0rdent.mirantis.com_clusteripams",
    "k0rdent.mirantis.com_clustertemplatechains",
    "k0rdent.mirantis.com_clustertemplates",
    "k0rdent.mirantis.com_credentials",
    "k0rdent.mirantis.com_datasources",
    "k0rdent.mirantis.com_managementbackups",
    "k0rdent.mirantis.com_managements",
    "k0rdent.mirantis.com_multiclusterservices",
    "k0rdent.mirantis.com_providerinterfaces",
    "k0rdent.mirantis.com_providertemplates",
    "k0rdent.mirantis.com_regions",
    "k0rdent.mirantis.com_releases",
    "k0rdent.mirantis.com_servicesets",
    "k0rdent.mirantis.com_servicetemplatechains",
    "k0rdent.mirantis.com_servicetemplates",
    "k0rdent.mirantis.com_statemanagementproviders",
];

/// Parsed once: a world in which kcm is never installed does not pay for it.
pub(in super::super) static K0S_DEFINITIONS: LazyLock<Vec<Value>> = LazyLock::new(|| parse(K0S));
pub(in super::super) static KCM_DEFINITIONS: LazyLock<Vec<Value>> = LazyLock::new(|| parse(KCM));

fn parse(documents: &[&str]) -> Vec<Value> {
    documents.iter().map(|document| serde_saphyr::from_str(document).expect("a CRD of our own")).collect()
}

/// Marks what belongs to which release of Helm.
pub(super) const RELEASE_LABEL: &str = "app.kubernetes.io/instance";

/// Provider, template, what it exposes, its deployments (the release of kcm 1.11; kcm documentation, verify-install).
type Provider = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

pub(super) const PROVIDERS: &[Provider] = &[
    (
        "cluster-api-provider-k0sproject-k0smotron",
        "cluster-api-provider-k0sproject-k0smotron-1-0-32",
        &[
            "bootstrap-k0sproject-k0smotron",
            "control-plane-k0sproject-k0smotron",
            "infrastructure-k0sproject-k0smotron",
        ],
        &[
            "k0smotron-controller-manager-bootstrap",
            "k0smotron-controller-manager-control-plane",
            "k0smotron-controller-manager-infrastructure",
        ],
    ),
    (
        "cluster-api-provider-azure",
        "cluster-api-provider-azure-1-0-31",
        &["infrastructure-azure"],
        &["azureserviceoperator-controller-manager", "capz-controller-manager"],
    ),
    (
        "cluster-api-provider-vsphere",
        "cluster-api-provider-vsphere-1-0-21",
        &["infrastructure-vsphere"],
        &["capv-controller-manager"],
    ),
    (
        "cluster-api-provider-aws",
        "cluster-api-provider-aws-1-0-25",
        &["infrastructure-aws"],
        &["capa-controller-manager"],
    ),
    (
        "cluster-api-provider-openstack",
        "cluster-api-provider-openstack-1-0-28",
        &["infrastructure-openstack"],
        &["capo-controller-manager", "orc-controller-manager"],
    ),
    (
        "cluster-api-provider-docker",
        "cluster-api-provider-docker-1-0-24",
        &["infrastructure-docker"],
        &["capd-controller-manager"],
    ),
    (
        "cluster-api-provider-gcp",
        "cluster-api-provider-gcp-1-0-23",
        &["infrastructure-gcp"],
        &["capg-controller-manager"],
    ),
    (
        "cluster-api-provider-ipam",
        "cluster-api-provider-ipam-1-0-13",
        &["ipam-in-cluster"],
        &["capi-ipam-in-cluster-controller-manager"],
    ),
    (
        "cluster-api-provider-infoblox",
        "cluster-api-provider-infoblox-1-0-12",
        &["ipam-infoblox"],
        &["capi-ipam-infoblox-controller-manager"],
    ),
    (
        "cluster-api-provider-kubevirt",
        "cluster-api-provider-kubevirt-1-0-10",
        &["infrastructure-kubevirt"],
        &["capk-controller-manager"],
    ),
    (
        "projectsveltos",
        "projectsveltos-1-12-1",
        &[],
        &["access-manager", "addon-controller", "classifier-manager", "event-manager", "hc-manager", "sc-manager"],
    ),
];

/// The template of Cluster API itself.
pub(super) const CAPI_TEMPLATE: &str = "cluster-api-1-1-15";

/// Deployments of the chart itself.
pub(super) const CHART_DEPLOYMENTS: &[&str] = &[
    "helm-controller",
    "kcm-cert-manager",
    "kcm-cert-manager-cainjector",
    "kcm-cert-manager-webhook",
    "kcm-cluster-api-operator",
    "kcm-controller-manager",
    "kcm-rbac-manager",
    "kcm-regional-telemetry",
    "kcm-reloader",
    "source-controller",
    "velero",
];

/// Cluster templates of kcm 1.11.4 (kcm source).
const TEMPLATES_1_11: &[&str] = &[
    "adopted-cluster-1-0-2",
    "aws-eks-1-0-13",
    "aws-hosted-cp-1-0-45",
    "aws-standalone-cp-1-0-43",
    "azure-aks-1-0-10",
    "azure-hosted-cp-1-0-48",
    "azure-standalone-cp-1-0-45",
    "docker-hosted-cp-1-0-15",
    "gcp-gke-1-0-15",
    "gcp-hosted-cp-1-0-45",
    "gcp-standalone-cp-1-0-43",
    "kubevirt-hosted-cp-1-0-22",
    "kubevirt-standalone-cp-1-0-24",
    "openstack-hosted-cp-1-0-40",
    "openstack-standalone-cp-1-0-46",
    "remote-cluster-1-0-38",
    "vsphere-hosted-cp-1-0-45",
    "vsphere-standalone-cp-1-0-42",
];

/// Cluster templates of earlier versions (guess).
const TEMPLATES_BEFORE: &[&str] = &[
    "adopted-cluster-1-0-1",
    "aws-eks-1-0-4",
    "aws-hosted-cp-1-0-8",
    "aws-standalone-cp-1-0-8",
    "azure-aks-1-0-2",
    "azure-hosted-cp-1-0-8",
    "azure-standalone-cp-1-0-8",
    "gcp-standalone-cp-1-0-8",
    "openstack-standalone-cp-1-0-8",
    "remote-cluster-1-0-8",
    "vsphere-standalone-cp-1-0-8",
];

/// The cluster templates of a version of kcm.
pub(super) fn cluster_templates(version: &str) -> &'static [&'static str] {
    let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse::<u64>().unwrap_or(0));
    let minor = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if minor >= (1, 11) { TEMPLATES_1_11 } else { TEMPLATES_BEFORE }
}

/// A version as it is written in names: dots become dashes.
pub(super) fn dashed(version: &str) -> String {
    version.replace(['.', '+'], "-")
}

/// `azure-standalone-cp-1-0-8` is version 1.0.8 of the chart `azure-standalone-cp`.
pub(super) fn split_template_name(name: &str) -> (String, String) {
    let mut parts: Vec<&str> = name.split('-').collect();
    let version = parts.split_off(parts.len().saturating_sub(3));
    (parts.join("-"), version.join("."))
}

/// A deployment of a release of Helm.
pub(super) fn deployment_object(namespace: &str, name: &str, release_name: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "Helm", RELEASE_LABEL: release_name},
            "annotations": {"meta.helm.sh/release-name": release_name, "meta.helm.sh/release-namespace": namespace},
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/name": name}},
                "spec": {"containers": [{"name": "manager", "image": format!("ghcr.io/k0rdent/kcm/{name}")}]},
            },
        },
    })
}

/// Where Helm keeps a release; its content is of no use to anybody here.
pub(super) fn helm_secret(namespace: &str, release_name: &str, revision: u64) -> Value {
    json!({
        "metadata": {
            "name": format!("sh.helm.release.v1.{release_name}.v{revision}"), "namespace": namespace,
            "labels": {
                "name": release_name, "owner": "helm", "status": "deployed", "version": revision.to_string(),
                RELEASE_LABEL: release_name,
            },
        },
        "type": "helm.sh/release.v1", "data": {"release": ""},
    })
}

/// The spec of the Release of a version.
pub(super) fn release_spec(version: &str) -> Value {
    let providers: Vec<Value> =
        PROVIDERS.iter().map(|(name, template, ..)| json!({"name": name, "template": template})).collect();
    let dashed = dashed(version);
    json!({
        "version": version,
        "kcm": {"template": format!("kcm-{dashed}")},
        "regional": {"template": format!("kcm-regional-{dashed}")},
        "capi": {"template": CAPI_TEMPLATE},
        "providers": providers,
    })
}

/// The providers that a component exposes.
pub(super) fn exposed(component: &str) -> &'static [&'static str] {
    match PROVIDERS.iter().find(|(name, ..)| *name == component) {
        Some((_, _, exposed, _)) => exposed,
        None if component == "kcm" => &["infrastructure-internal"],
        None => &[],
    }
}

/// The deployments of a component, besides those of the chart.
pub(super) fn deployments(component: &str) -> &'static [&'static str] {
    match PROVIDERS.iter().find(|(name, ..)| *name == component) {
        Some((_, _, _, deployments)) => deployments,
        None if component == "capi" => &["capi-controller-manager"],
        None => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_parses() {
        assert_eq!(K0S_DEFINITIONS.len(), 6);
        assert_eq!(KCM_DEFINITIONS.len(), 23);
        assert!(KCM_DEFINITIONS.iter().all(|each| each["kind"] == "CustomResourceDefinition"));
    }
}
