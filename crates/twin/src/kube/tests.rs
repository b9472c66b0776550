//! The API and the controllers together, without a network; and once through TLS.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::{
    ClusterId, ClusterSpec, NodeSpec, admin_kubeconfig,
    api::{Caller, Content, Reply, Request, handle},
    bearer_token, create, kubectl, register_node, schema, serve, set_node_ready,
};
use crate::{Fault, FaultKind, Options, Twin};

const CHARTS: &str = "/apis/helm.k0sproject.io/v1beta1/namespaces/kube-system/charts";
const MANAGEMENT: &str = "/apis/k0rdent.mirantis.com/v1beta1/managements/kcm";
const RELEASES: &str = "/apis/helm.toolkit.fluxcd.io/v2/namespaces/kcm-system/helmreleases";
const DEPLOYMENTS: &str = "/apis/k0rdent.mirantis.com/v1beta1/namespaces/kcm-system/clusterdeployments";

/// A world with one cluster.
struct Fixture {
    twin: Twin,
    id: ClusterId,
}

impl Fixture {
    fn new() -> Self {
        let twin = Twin::new(Options::default());
        let spec = ClusterSpec { k0s_version: "v1.33.2+k0s.0".into(), names: vec!["10.0.0.4".into()] };
        let id = twin.with(|world| create(world, spec));
        Self { twin, id }
    }

    fn with_node() -> Self {
        let fixture = Self::new();
        fixture.node("worker-1", true);
        fixture
    }

    /// With kcm's chart being installed.
    async fn with_chart(values: &str) -> Self {
        let fixture = Self::with_node();
        fixture.post(CHARTS, &chart(values));
        fixture.pass(150).await;
        fixture
    }

    fn node(&self, name: &str, ready: bool) {
        let node = NodeSpec {
            name: name.into(),
            internal_ip: "10.0.0.5".into(),
            labels: BTreeMap::from([("node-role.kubernetes.io/control-plane".into(), "true".into())]),
            taints: Vec::new(),
            architecture: "amd64".into(),
            static_pods: vec!["nllb".into()],
        };
        self.twin.with(|world| {
            register_node(world, self.id, node);
            set_node_ready(world, self.id, name, ready, "");
        });
    }

    async fn pass(&self, seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        self.twin.with(|_| {});
    }

    fn send(&self, method: &str, path: &str, content_type: &str, accept: &str, body: &Value) -> Reply {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut request = Request::of(Caller::Administrator, method, path, query, body);
        (request.content_type, request.accept) = (content_type.into(), accept.into());
        request.user_agent = "test/1".into();
        self.twin.with(|world| handle(world, self.id, &request))
    }

    fn ask(&self, method: &str, path: &str, content_type: &str, body: &Value) -> (u16, Value) {
        let reply = self.send(method, path, content_type, "", body);
        (reply.code, serde_json::from_str(&reply.body_text()).unwrap_or_default())
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, "", &Value::Null)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", path, "application/json", body)
    }

    fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("PUT", path, "application/json", body)
    }

    fn merge(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("PATCH", path, "application/merge-patch+json", body)
    }

    fn apply(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("PATCH", path, "application/apply-patch+yaml", body)
    }

    fn delete(&self, path: &str) -> (u16, Value) {
        self.ask("DELETE", path, "", &Value::Null)
    }

    fn ready(&self) -> (String, String) {
        let (_, management) = self.get(MANAGEMENT);
        let ready = &management["status"]["conditions"][0];
        let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }

    fn fault(&self, kind: Option<FaultKind>, target: Option<&str>) {
        let fault = kind.map(|name| Fault { name, target: target.map(str::to_owned), times: None });
        self.twin.with(|world| world.faults.active = fault.into_iter().collect());
    }

    fn kubectl(&self, arguments: &str) -> (u32, String, String) {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        self.twin.with(|world| kubectl(world, self.id, &arguments))
    }
}

fn chart(values: &str) -> Value {
    json!({
        "apiVersion": "helm.k0sproject.io/v1beta1", "kind": "Chart",
        "metadata": {"name": "kcm", "namespace": "kube-system"},
        "spec": {
            "chartName": "oci://ghcr.io/k0rdent/kcm/charts/kcm", "version": "1.1.1", "namespace": "kcm-system",
            "releaseName": "kcm", "values": values,
        },
    })
}

fn config_map(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "b"}})
}

fn cluster_deployment() -> Value {
    json!({
        "apiVersion": "k0rdent.mirantis.com/v1beta1", "kind": "ClusterDeployment",
        "metadata": {"name": "child", "namespace": "kcm-system"},
        "spec": {"template": "azure-standalone-cp-1-0-8", "config": {"location": "westus"}},
    })
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(start_paused = true)]
async fn objects_are_created_read_changed_and_deleted() {
    let fixture = Fixture::new();
    let (code, created) = fixture.post(MAPS, &config_map("a", json!({})));
    assert_eq!((code, created["metadata"]["creationTimestamp"].as_str()), (201, Some("2027-01-04T08:00:00Z")));
    let (code, again) = fixture.post(MAPS, &config_map("a", json!({})));
    assert_eq!((code, &again["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(again["message"], "configmaps \"a\" already exists");
    let path = format!("{MAPS}/a");
    let (code, _) = fixture.merge(&path, &json!({"data": {"c": "d"}}));
    assert_eq!(code, 200);
    let (code, stale) = fixture.put(&path, &created);
    assert_eq!((code, &stale["reason"]), (409, &json!("Conflict")));
    let (_, unchanged) = fixture.merge(&path, &json!({"data": {"c": "d"}}));
    assert_eq!(unchanged["metadata"]["resourceVersion"], fixture.get(&path).1["metadata"]["resourceVersion"]);
    let dry = fixture.ask("DELETE", &format!("{path}?dryRun=All"), "", &Value::Null);
    assert_eq!((dry.0, fixture.get(&path).0), (200, 200));
    let (code, status) = fixture.delete(&path);
    assert_eq!((code, &status["status"]), (200, &json!("Success")));
    let (code, missing) = fixture.get(&path);
    assert_eq!((code, &missing["message"]), (404, &json!("configmaps \"a\" not found")));
    let (code, lost) = fixture.post("/api/v1/namespaces/none/configmaps", &config_map("a", json!({})));
    assert_eq!((code, &lost["message"]), (404, &json!("namespaces \"none\" not found")));
    let (code, invalid) = fixture.post(MAPS, &config_map("A_b", json!({})));
    assert_eq!((code, &invalid["reason"]), (422, &json!("Invalid")));
    assert_eq!(fixture.get("/apis/none/v1/things").0, 404);
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_and_what_is_reported_are_written_apart() {
    let fixture = Fixture::new();
    let mut object = chart("");
    object["status"] = json!({"revision": 7});
    let (_, created) = fixture.post(CHARTS, &object);
    assert_eq!((&created["metadata"]["generation"], created.get("status")), (&json!(1), None));
    let path = format!("{CHARTS}/kcm");
    let (_, reported) =
        fixture.merge(&format!("{path}/status"), &json!({"status": {"error": "x"}, "spec": {"order": 9}}));
    assert_eq!((&reported["metadata"]["generation"], &reported["status"]["error"]), (&json!(1), &json!("x")));
    assert_eq!(reported["spec"].get("order"), None);
    let (_, wanted) = fixture.merge(&path, &json!({"status": {"error": "y"}, "spec": {"order": 9}}));
    assert_eq!((&wanted["metadata"]["generation"], &wanted["status"]["error"]), (&json!(2), &json!("x")));
    let (code, invalid) = fixture.merge(&path, &json!({"spec": {"order": "ninth"}}));
    assert_eq!(
        (code, invalid["message"].as_str()),
        (
            422,
            Some(
                "Chart.helm.k0sproject.io \"kcm\" is invalid: spec.order: Invalid value: \"string\": spec.order in body must be of type integer: \"string\""
            )
        )
    );
    let strict = fixture.ask(
        "PATCH",
        &format!("{path}?fieldValidation=Strict"),
        "application/merge-patch+json",
        &json!({"spec": {"typo": 1}}),
    );
    assert_eq!(strict.0, 400);
}

#[tokio::test(start_paused = true)]
async fn lists_are_selected_and_paged() {
    let fixture = Fixture::new();
    for index in 0..5 {
        fixture.post(MAPS, &config_map(&format!("m{index}"), json!({"odd": (index % 2 == 1).to_string()})));
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| super::object::name(item).to_owned()).filter(|name| name.starts_with('m')).collect()
    };
    assert_eq!(names(&fixture.get(&format!("{MAPS}?labelSelector=odd%3Dtrue")).1), ["m1", "m3"]);
    assert_eq!(names(&fixture.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm2")).1), ["m2"]);
    assert_eq!(names(&fixture.get(&format!("{MAPS}?fieldSelector=metadata.name%21%3Dm2")).1).len(), 4);
    let (_, first) = fixture.get(&format!("{MAPS}?limit=4"));
    let token = first["metadata"]["continue"].as_str().unwrap_or_default().replace('=', "%3D").replace('+', "%2B");
    let (_, second) = fixture.get(&format!("{MAPS}?limit=4&continue={token}"));
    assert_eq!([names(&first), names(&second)].concat(), ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(second["metadata"].get("continue"), None);
}

#[tokio::test(start_paused = true)]
async fn a_watch_sees_the_past_and_the_future() {
    let fixture = Fixture::new();
    fixture.post(MAPS, &config_map("a", json!({})));
    let (_, list) = fixture.get(MAPS);
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    fixture.post(MAPS, &config_map("b", json!({})));
    let watch = |query: &str| fixture.send("GET", &format!("{MAPS}?watch=1{query}"), "", "", &Value::Null);
    let mut from_then = watch(&format!("&resourceVersion={revision}"));
    let mut from_now = watch("&fieldSelector=metadata.name%3Da&sendInitialEvents=true&allowWatchBookmarks=true");
    fixture.delete(&format!("{MAPS}/a"));
    let events = |reply: &mut Reply| -> Vec<(String, String)> {
        let Content::Watch(stream) = &mut reply.content else { return Vec::new() };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        stream.drain().iter().map(|event| (text(&event["type"]), text(&event["object"]["metadata"]["name"]))).collect()
    };
    let pair = |verb: &str, name: &str| (verb.to_owned(), name.to_owned());
    assert_eq!(events(&mut from_then), [pair("ADDED", "b"), pair("DELETED", "a")]);
    assert_eq!(events(&mut from_now), [pair("ADDED", "a"), pair("BOOKMARK", ""), pair("DELETED", "a")]);
}

#[tokio::test(start_paused = true)]
async fn strangers_are_turned_away_and_join_tokens_see_no_objects() {
    let fixture = Fixture::new();
    let ask = |caller: Caller, path: &str| {
        let request = Request::of(caller, "GET", path, None, Bytes::new());
        fixture.twin.with(|world| handle(world, fixture.id, &request)).code
    };
    let token = || Caller::Token("abc.secret".into());
    assert_eq!(ask(Caller::Nobody, "/version"), 401);
    assert_eq!(ask(token(), "/version"), 401);
    fixture.twin.with(|world| bearer_token(world, fixture.id, "abc.secret", true));
    assert_eq!((ask(token(), "/version"), ask(token(), "/api/v1/nodes")), (200, 403));
    fixture.twin.with(|world| bearer_token(world, fixture.id, "abc.secret", false));
    assert_eq!(ask(token(), "/version"), 401);
}

#[tokio::test(start_paused = true)]
async fn nodes_are_shown_as_kubectl_shows_them() {
    let fixture = Fixture::new();
    fixture.node("worker-1", false);
    fixture.pass(125).await;
    fixture.node("worker-1", true);
    let (code, output, _) = fixture.kubectl("get nodes");
    assert_eq!(code, 0);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines,
        [
            "NAME       STATUS   ROLES           AGE    VERSION",
            "worker-1   Ready    control-plane   2m5s   v1.33.2+k0s"
        ]
    );
    assert_eq!(fixture.kubectl("get --raw=/readyz").1, "ok");
    let (_, drained, _) = fixture.kubectl("drain worker-1 --ignore-daemonsets --delete-emptydir-data");
    assert_eq!(drained, "node/worker-1 cordoned\nnode/worker-1 drained\n");
    assert!(fixture.kubectl("get nodes").1.contains("Ready,SchedulingDisabled"));
    assert_eq!(fixture.kubectl("delete node worker-1").1, "node \"worker-1\" deleted\n");
    assert_eq!(fixture.kubectl("delete node worker-1 --ignore-not-found"), (0, String::new(), String::new()));
    let (code, _, error) = fixture.kubectl("delete node worker-1");
    assert_eq!((code, error.as_str()), (1, "Error from server (NotFound): nodes \"worker-1\" not found\n"));
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_is_mirrored_again_until_its_node_is_gone() {
    let fixture = Fixture::with_node();
    fixture.pass(1).await;
    let path = "/api/v1/namespaces/kube-system/pods/nllb-worker-1";
    let (status, mirror) = fixture.get(path);
    assert_eq!((status, &mirror["status"]["phase"]), (200, &json!("Running")), "{mirror}");
    assert_eq!(fixture.send("DELETE", path, "application/json", "application/json", &Value::Null).code, 200);
    fixture.pass(1).await;
    let (status, again) = fixture.get(path);
    assert!(status == 200 && again["metadata"]["uid"] != mirror["metadata"]["uid"], "{again}");
    assert_eq!(fixture.kubectl("drain worker-1").1, "node/worker-1 cordoned\nnode/worker-1 drained\n");
    assert_eq!(fixture.kubectl("delete node worker-1").0, 0);
    fixture.pass(1).await;
    assert_eq!(fixture.get(path).0, 404);
}

#[tokio::test(start_paused = true)]
async fn the_chart_waits_for_a_node_and_brings_kcm_which_becomes_ready_in_minutes() {
    let fixture = Fixture::new();
    fixture.node("worker-1", false);
    fixture.post(CHARTS, &chart("controller: {validateClusterUpgradePath: false}"));
    fixture.pass(900).await;
    assert_eq!(fixture.get(&format!("{CHARTS}/kcm")).1.get("status"), None);
    fixture.node("worker-1", true);
    fixture.pass(150).await;
    let (_, installed) = fixture.get(&format!("{CHARTS}/kcm"));
    assert_eq!((&installed["status"]["revision"], &installed["status"]["version"]), (&json!(1), &json!("1.1.1")));
    assert_eq!(fixture.ready(), ("False".into(), "NotAllComponentsHealthy".into()));
    let mut minutes = 0;
    while fixture.ready().0 != "True" && minutes < 20 {
        fixture.pass(60).await;
        minutes += 1;
    }
    assert!((3..=10).contains(&minutes), "ready after {minutes} minutes");
    let (_, management) = fixture.get(MANAGEMENT);
    assert_eq!(management["status"]["release"], management["spec"]["release"]);
    assert_eq!(management["status"]["observedGeneration"], management["metadata"]["generation"]);
    // Whatever we make ourselves keeps the rules that clients have to keep.
    fixture.twin.with(|world| {
        let cluster = &world.clusters.by_id[&fixture.id];
        for (kind, key, object) in cluster.store.everything() {
            let Some(custom) = cluster.types.by_id(kind).and_then(|kind| kind.custom.clone()) else { continue };
            assert_eq!(schema::validate(custom.schema(), object), [], "{kind} {key:?}");
            assert_eq!(schema::prune(custom.schema(), &mut (**object).clone()), [""; 0], "{kind} {key:?}");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_chart_that_cannot_be_pulled_says_so() {
    let fixture = Fixture::with_node();
    let mut object = chart("");
    object["spec"]["chartName"] = json!("oci://example.com/other");
    fixture.post(CHARTS, &object);
    fixture.pass(5).await;
    let (_, failed) = fixture.get(&format!("{CHARTS}/kcm"));
    assert!(failed["status"]["error"].as_str().is_some_and(|error| error.contains("failed to pull")), "{failed}");
    fixture.merge(&format!("{CHARTS}/kcm"), &json!({"spec": {"chartName": chart("")["spec"]["chartName"]}}));
    fixture.pass(150).await;
    assert_eq!(fixture.get(MANAGEMENT).0, 200);
}

#[tokio::test(start_paused = true)]
async fn faults_keep_the_management_from_being_ready_until_they_are_lifted() {
    let fixture = Fixture::with_chart("").await;
    fixture.fault(Some(FaultKind::ComponentFailure), Some("azure"));
    fixture.pass(900).await;
    let (_, failing) = fixture.get(MANAGEMENT);
    let azure = &failing["status"]["components"]["cluster-api-provider-azure"];
    assert!(azure["error"].as_str().is_some_and(|error| error.contains("Helm install failed")), "{azure}");
    let (_, release) = fixture.get(&format!("{RELEASES}/cluster-api-provider-azure"));
    assert_eq!(said(&release, "Stalled").1, "RetriesExceeded");
    assert_eq!(failing["status"]["conditions"][0]["message"], "Components not ready: [cluster-api-provider-azure]");
    fixture.fault(Some(FaultKind::ManagementNotReady), None);
    fixture.pass(20).await;
    assert_eq!(fixture.ready().0, "False");
    fixture.fault(Some(FaultKind::WrongRelease), None);
    fixture.pass(20).await;
    let (_, wrong) = fixture.get(MANAGEMENT);
    assert_eq!((&wrong["spec"]["release"], &wrong["status"]["release"]), (&json!("kcm-0-0-1"), &json!("kcm-0-0-1")));
    assert_eq!(fixture.ready().0, "True");
    fixture.fault(None, None);
    fixture.pass(20).await;
    let (_, healed) = fixture.get(MANAGEMENT);
    assert_eq!((&healed["spec"]["release"], &healed["status"]["release"]), (&json!("kcm-1-1-1"), &json!("kcm-1-1-1")));
}

/// The status of a condition of a HelmRelease, with its reason and its message.
fn said(release: &Value, kind: &str) -> (String, String, String) {
    let conditions = release["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let condition = conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// What asks Flux to begin again.
fn request(requested: &str, reset: &str) -> Value {
    let annotations = json!({"reconcile.fluxcd.io/requestedAt": requested, "reconcile.fluxcd.io/resetAt": reset});
    json!({"metadata": {"annotations": annotations}})
}

#[tokio::test(start_paused = true)]
async fn each_component_has_a_release_that_says_how_far_it_has_come() {
    let fixture = Fixture::with_node();
    fixture.post(CHARTS, &chart(""));
    while fixture.get(RELEASES).1["items"].as_array().is_none_or(Vec::is_empty) {
        fixture.pass(1).await;
    }
    let (_, capi) = fixture.get(&format!("{RELEASES}/capi"));
    assert_eq!(said(&capi, "Reconciling").1, "Progressing", "{capi}");
    let (_, azure) = fixture.get(&format!("{RELEASES}/cluster-api-provider-azure"));
    assert_eq!(said(&azure, "Ready").2, "dependency 'kcm-system/capi' is not ready");
    fixture.pass(900).await;
    let (_, all) = fixture.get(RELEASES);
    let all = all["items"].as_array().cloned().unwrap_or_default();
    assert_eq!(all.len(), 13);
    for release in &all {
        let conditions = release["status"]["conditions"].as_array().map_or(0, Vec::len);
        let (status, reason, _) = said(release, "Ready");
        assert_eq!((status.as_str(), reason.as_str(), conditions), ("True", "InstallSucceeded", 2), "{release}");
    }
    // Somebody deletes one: it is installed anew.
    fixture.delete(&format!("{RELEASES}/projectsveltos"));
    fixture.pass(30).await;
    assert_eq!(fixture.ready().0, "False");
    fixture.pass(900).await;
    assert_eq!(fixture.ready().0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_webhook_is_late_is_given_up_until_flux_is_asked_to_begin_again() {
    let fixture = Fixture::with_node();
    let late = Fault { name: FaultKind::LateWebhook, target: Some("capi".into()), times: Some(2) };
    fixture.twin.with(|world| world.faults.active = vec![late]);
    fixture.post(CHARTS, &chart(""));
    fixture.pass(900).await;
    let path = format!("{RELEASES}/capi");
    let given_up = |attempts: &str| {
        let (_, release) = fixture.get(&path);
        assert_eq!(said(&release, "Stalled").1, "RetriesExceeded", "{release}");
        assert_eq!(said(&release, "Stalled").2, attempts);
        assert_eq!(said(&release, "Released").1, "InstallFailed");
        assert_eq!(said(&release, "Remediated").1, "UninstallSucceeded");
        assert!(said(&release, "Ready").2.contains("failed calling webhook \"vcoreprovider.kb.io\""), "{release}");
    };
    given_up("Failed to install after 4 attempt(s)");
    let (_, management) = fixture.get(MANAGEMENT);
    let error = management["status"]["components"]["capi"]["error"].as_str().unwrap_or_default();
    let expected = "HelmRelease kcm-system/capi is not yet ready: Helm install failed for release kcm-system/capi with chart cluster-api@1.1.15: 1 error occurred:";
    assert!(error.starts_with(expected) && error.ends_with("i/o timeout"), "{error}");
    // Two different values are no request to forget the failures.
    assert_eq!(fixture.merge(&path, &request("1", "2")).0, 200);
    fixture.pass(600).await;
    given_up("Failed to install after 4 attempt(s)");
    assert_eq!(fixture.get(&path).1["status"]["lastHandledReconcileAt"], "1");
    // Once more it is tried four times, and not because the same is said twice.
    fixture.merge(&path, &request("3", "3"));
    fixture.pass(5).await;
    assert_eq!(said(&fixture.get(&path).1, "Stalled").0, "");
    fixture.pass(600).await;
    given_up("Failed to install after 4 attempt(s)");
    fixture.merge(&path, &request("3", "3"));
    fixture.pass(600).await;
    given_up("Failed to install after 4 attempt(s)");
    // The fault has struck twice; the next request succeeds, and what waited goes on.
    fixture.merge(&path, &request("4", "4"));
    fixture.pass(60).await;
    assert_eq!(said(&fixture.get(&path).1, "Ready").0, "True");
    assert_eq!(fixture.ready().0, "False");
    fixture.pass(600).await;
    assert_eq!(fixture.ready().0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_was_given_up_is_installed_when_it_is_deleted() {
    let fixture = Fixture::with_node();
    let late = Fault { name: FaultKind::LateWebhook, target: Some("capi".into()), times: Some(1) };
    fixture.twin.with(|world| world.faults.active = vec![late]);
    fixture.post(CHARTS, &chart(""));
    fixture.pass(1800).await;
    assert_eq!(fixture.ready().0, "False");
    fixture.delete(&format!("{RELEASES}/capi"));
    fixture.pass(900).await;
    assert_eq!(fixture.ready().0, "True");
}

#[tokio::test(start_paused = true)]
async fn kcm_is_taken_down_in_order() {
    let fixture = Fixture::with_chart("").await;
    fixture.pass(900).await;
    fixture.post(DEPLOYMENTS, &cluster_deployment());
    fixture.pass(1).await;
    let (code, refused) = fixture.delete(MANAGEMENT);
    assert_eq!(code, 403);
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("ClusterDeployment objects still exist")));
    let (_, leaving) = fixture.delete(&format!("{DEPLOYMENTS}/child"));
    assert!(leaving["metadata"].get("deletionTimestamp").is_some());
    fixture.pass(65).await;
    assert_eq!(fixture.get(&format!("{DEPLOYMENTS}/child")).0, 404);
    fixture.delete(MANAGEMENT);
    fixture.pass(1).await;
    let (_, leaving) = fixture.get(&format!("{RELEASES}/kcm"));
    assert!(leaving["spec"]["suspend"] == true && leaving["metadata"].get("deletionTimestamp").is_some(), "{leaving}");
    fixture.pass(300).await;
    assert_eq!(fixture.get(MANAGEMENT).0, 404);
    assert_eq!(fixture.get(RELEASES).1["items"], json!([]));
    fixture.delete(&format!("{CHARTS}/kcm"));
    fixture.pass(60).await;
    assert_eq!(fixture.get(&format!("{CHARTS}/kcm")).0, 404);
    assert_eq!(fixture.get("/apis/apps/v1/namespaces/kcm-system/deployments").1["items"], json!([]));
    fixture.delete("/api/v1/namespaces/kcm-system");
    fixture.pass(15).await;
    assert_eq!(fixture.get("/api/v1/namespaces/kcm-system").0, 404);
}

#[tokio::test(start_paused = true)]
async fn without_its_controllers_a_management_stays_for_ever() {
    let fixture = Fixture::with_chart("").await;
    fixture.pass(900).await;
    fixture.delete(&format!("{CHARTS}/kcm"));
    fixture.pass(60).await;
    fixture.delete(MANAGEMENT);
    fixture.pass(3600).await;
    assert_eq!(fixture.get(MANAGEMENT).0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_waits_for_finalizers_and_says_which() {
    let fixture = Fixture::new();
    fixture.post("/api/v1/namespaces", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}));
    let maps = "/api/v1/namespaces/demo/configmaps";
    let mut held = config_map("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    fixture.post(maps, &held);
    fixture.delete("/api/v1/namespaces/demo");
    fixture.pass(20).await;
    let (_, terminating) = fixture.get("/api/v1/namespaces/demo");
    assert_eq!(terminating["status"]["phase"], "Terminating");
    let conditions = terminating["status"]["conditions"].to_string();
    assert!(conditions.contains("example.com/hold in 1 resource instances"), "{conditions}");
    let (code, refused) = fixture.post(maps, &config_map("new", json!({})));
    assert_eq!((code, &refused["reason"]), (403, &json!("Forbidden")));
    fixture.merge(&format!("{maps}/held"), &json!({"metadata": {"finalizers": null}}));
    fixture.pass(20).await;
    assert_eq!(fixture.get("/api/v1/namespaces/demo").0, 404);
}

#[tokio::test(start_paused = true)]
async fn applied_fields_have_owners() {
    let fixture = Fixture::new();
    let path = format!("{CHARTS}/kcm");
    let wanted = |order: u64| {
        let mut object = chart("");
        object["spec"] = json!({"chartName": "oci://x/kcm", "version": "1.1.1", "order": order});
        object
    };
    let (code, _) = fixture.apply(&format!("{path}?fieldManager=one"), &wanted(1));
    assert_eq!(code, 201);
    let (code, conflict) = fixture.apply(&format!("{path}?fieldManager=two"), &wanted(2));
    assert_eq!((code, conflict["details"]["causes"][0]["field"].as_str()), (409, Some(".spec.order")));
    let (code, forced) = fixture.apply(&format!("{path}?fieldManager=two&force=true"), &wanted(2));
    assert_eq!((code, &forced["spec"]["order"]), (200, &json!(2)));
    let mut without = wanted(2);
    super::object::unset(&mut without, &["spec", "order"]);
    let (_, given_up) = fixture.apply(&format!("{path}?fieldManager=two"), &without);
    assert_eq!(given_up["spec"].get("order"), None);
    let managers = given_up["metadata"]["managedFields"].as_array().map_or(0, Vec::len);
    assert_eq!((managers, &given_up["spec"]["version"]), (2, &json!("1.1.1")));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_history() {
    async fn history() -> String {
        let fixture = Fixture::with_chart("").await;
        fixture.pass(900).await;
        fixture.kubectl("drain worker-1");
        fixture.pass(60).await;
        let pods = fixture.kubectl("get pods -A").1;
        fixture.twin.with(|world| format!("{pods}{:?}", world.ledger.entries))
    }
    assert_eq!(history().await, history().await);
}

/// A client that trusts the cluster of a kubeconfig and shows the certificate in it.
fn tls_client(kubeconfig: &str) -> tokio_rustls::TlsConnector {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let pem = |key: &str| {
        let line = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(key)).expect("a line of the kubeconfig");
        BASE64_STANDARD.decode(line.trim()).expect("base64")
    };
    let mut roots = rustls::RootCertStore::empty();
    let authority = pem("certificate-authority-data:");
    roots.add(CertificateDer::from_pem_slice(&authority).expect("a certificate")).expect("a root");
    let certificate = CertificateDer::from_pem_slice(&pem("client-certificate-data:")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data:")).expect("a key");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .expect("a client certificate");
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config))
}

#[tokio::test(start_paused = true)]
async fn a_watch_through_tls_ends_at_its_timeout_in_virtual_time() {
    let fixture = Fixture::with_node();
    tokio::spawn(fixture.twin.clone().drive());
    let kubeconfig = fixture.twin.with(|world| admin_kubeconfig(world, fixture.id, "https://10.0.0.4:6443"));
    let (client, server) = tokio::io::duplex(64 * 1024);
    tokio::spawn(serve(fixture.twin.clone(), fixture.id, server));
    let name = rustls_pki_types::ServerName::try_from("10.0.0.4").expect("an address");
    let stream = tls_client(&kubeconfig).connect(name, client).await.expect("a trusted server");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let uri = "/api/v1/nodes?watch=true&timeoutSeconds=290&allowWatchBookmarks=true";
    let request = hyper::Request::get(uri).header("host", "x").body(Full::<Bytes>::default()).expect("a request");
    let began = tokio::time::Instant::now();
    let mut body = sender.send_request(request).await.expect("an answer").into_body();
    let mut types = Vec::new();
    while let Some(frame) = body.frame().await {
        let event: Value = serde_json::from_slice(&frame.expect("a frame").into_data().expect("data")).expect("JSON");
        types.push(event["type"].as_str().unwrap_or_default().to_owned());
        if types.len() == 1 {
            fixture.twin.with(|world| set_node_ready(world, fixture.id, "worker-1", false, ""));
        }
    }
    assert_eq!(types, ["ADDED", "MODIFIED", "BOOKMARK"]);
    assert_eq!(began.elapsed().as_secs(), 290);
}

#[tokio::test(start_paused = true)]
async fn five_hundred_nodes_are_watched_cheaply() {
    let fixture = Fixture::new();
    let watch = fixture.send("GET", "/api/v1/nodes?watch=1", "", "", &Value::Null);
    for index in 0..500 {
        fixture.node(&format!("worker-{index}"), false);
    }
    for index in 0..500 {
        fixture.node(&format!("worker-{index}"), true);
    }
    let Content::Watch(mut stream) = watch.content else { panic!("not a watch") };
    // Registered, not ready for another reason, ready.
    assert_eq!(stream.drain().len(), 1500);
    let (_, list) = fixture.get("/api/v1/nodes");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(500));
}
