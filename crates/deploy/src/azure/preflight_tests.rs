//! Tests of the preflight against a scripted Azure.

use engine::Intent;
use insta::assert_snapshot;

use super::*;
use crate::azure::scripted::{Script, answer, json as json_answer};

fn demand(size: &str, count: u32, zones: &[u8]) -> Demand {
    Demand {
        location: "westus2".into(),
        spot: false,
        nodes: vec![NodeDemand { size: size.into(), count, zones: zones.to_vec() }],
        image: Image::try_from("Debian:debian-12:12-gen2:latest".to_owned()).unwrap(),
    }
}

fn size(name: &str, architecture: &str, restrictions: Value) -> Value {
    let capability = |name: &str, value: &str| json!({"name": name, "value": value});
    json!({
        "resourceType": "virtualMachines", "name": name, "family": "standardDSv5Family", "restrictions": restrictions,
        "locationInfo": [{"location": "WestUS2", "zones": ["3", "1", "2"]}],
        "capabilities": [capability("vCPUs", "4"), capability("CpuArchitectureType", architecture),
            capability("HyperVGenerations", "V1,V2"), capability("LowPriorityCapable", "False")],
    })
}

/// Azure with one good size, one for Arm64, one that this subscription does not get.
fn azure(path: &str) -> (u16, Value) {
    let usage =
        |name: &str, used: u32, limit: i32| json!({"name": {"value": name}, "currentValue": used, "limit": limit});
    let zone_3 = json!([{"type": "Zone", "restrictionInfo": {"zones": ["3"]}}]);
    let nowhere = json!([{"type": "Location", "reasonCode": "NotAvailableForSubscription"}]);
    let last: Vec<&str> = path.rsplit('/').take(2).collect();
    let body = match last[..] {
        ["sub", _] => json!({"subscriptionId": "sub", "displayName": "Ours", "tenantId": "t", "state": "Enabled"}),
        ["Microsoft.Compute" | "Microsoft.Network", _] => json!({"registrationState": "Registered"}),
        ["skus", _] => {
            json!({"value": [size("Standard_D4s_v5", "x64", zone_3), size("Standard_D4ps_v5", "Arm64", json!([])),
            size("Standard_Gone", "x64", nowhere), {"resourceType": "disks", "name": "Premium_LRS"}]})
        }
        ["versions", _] => json!([{"name": "0.20251112.2294"}]),
        ["0.20251112.2294", _] => {
            json!({"properties": {"architecture": "x64", "hyperVGeneration": "V2", "plan": null}})
        }
        ["locks", _] => json!({"value": []}),
        ["usages", _] if path.contains("Compute") => {
            json!({"value": [usage("cores", 2, 20), usage("lowPriorityCores", 0, 3),
            usage("standardDSv5Family", 0, 10), usage("virtualMachines", 0, 25_000)]})
        }
        ["usages", _] => json!({"value": [usage("PublicIPAddresses", 0, 2), usage("NetworkInterfaces", 0, -1)]}),
        _ => return (404, json!({"error": {"code": "NotFound", "message": path}})),
    };
    (200, body)
}

fn scripted() -> Script {
    Script::arm(|seen| {
        let (status, body) = azure(&seen.path);
        json_answer(status, &body)
    })
}

async fn checked(script: &Script, demand: &Demand) -> (Facts, String) {
    let report = preflight(&script.client(), demand, Call::within(Duration::from_secs(120))).await;
    let Report { facts, findings } = report.unwrap();
    let line = |finding: &Finding| format!("{:?}: {finding}", finding.severity);
    (facts, findings.iter().map(line).collect::<Vec<_>>().join("\n"))
}

#[tokio::test(start_paused = true)]
async fn a_possible_cluster_has_no_findings() {
    let script = scripted();
    let (facts, findings) = checked(&script, &demand("Standard_D4s_v5", 2, &[1, 2])).await;
    assert_eq!(findings, "");
    assert_eq!(facts.image_version, "0.20251112.2294");
    assert_eq!((facts.vcpus["Standard_D4s_v5"], &facts.zones["Standard_D4s_v5"][..]), (4, &[1, 2][..]));
    assert_eq!((facts.subscription.as_str(), facts.subscription_name.as_str()), ("sub", "Ours"));
    assert!(script.lines().iter().all(|line| line.starts_with("GET ")), "it only looks");
}

#[tokio::test(start_paused = true)]
async fn everything_that_is_missing_is_said_at_once() {
    let (_, findings) = checked(&scripted(), &demand("Standard_D4s_v5", 5, &[1, 3])).await;
    assert_snapshot!(findings, @r"
    Error: size Standard_D4s_v5: need zone 3; have zones 1, 2 of westus2. Take these zones out of the configuration, or choose another size.
    Error: cores in westus2: need 20; have 18 of 20. Request more quota (Azure portal: Subscriptions, Usage + quotas), or choose fewer or smaller machines, another size family or another region.
    Error: standardDSv5Family cores in westus2: need 20; have 10 of 10. Request more quota (Azure portal: Subscriptions, Usage + quotas), or choose fewer or smaller machines, another size family or another region.
    Error: PublicIPAddresses in westus2: need 5; have 2 of 2. Request more quota (Azure portal: Subscriptions, Usage + quotas), or choose fewer or smaller machines, another size family or another region.
    ");
    let mut arm = demand("Standard_D4ps_v5", 1, &[1]);
    arm.spot = true;
    arm.nodes.push(NodeDemand { size: "Standard_Gone".into(), count: 1, zones: vec![1] });
    arm.nodes.push(NodeDemand { size: "Standard_Typo".into(), count: 1, zones: vec![1] });
    let (_, findings) = checked(&scripted(), &arm).await;
    assert_snapshot!(findings, @r"
    Error: size Standard_D4ps_v5: need Spot; have regular only. Choose another size, or set the VM priority to Regular.
    Error: size Standard_D4ps_v5: need x64, as the image; have Arm64. Choose an image and sizes of the same architecture.
    Error: size Standard_Gone: need availability in westus2; have none for this subscription. Choose another size or region, or ask Azure support for access.
    Error: size Standard_Typo: need availability in westus2; have none. Choose another size or region, or ask Azure support for access.
    Error: Spot cores in westus2: need 4; have 3 of 3. Request more quota (Azure portal: Subscriptions, Usage + quotas), or choose fewer or smaller machines, another size family or another region.
    Error: PublicIPAddresses in westus2: need 3; have 2 of 2. Request more quota (Azure portal: Subscriptions, Usage + quotas), or choose fewer or smaller machines, another size family or another region.
    ");
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_and_locks_are_found() {
    let script = Script::arm(|seen| {
        if seen.path.ends_with("/locks") {
            let lock = |name: &str, scope: &str, level: &str| {
                json!({"name": name, "id": format!("/subscriptions/sub{scope}/providers/Microsoft.Authorization/locks/{name}"),
                    "properties": {"level": level}})
            };
            let ours = lock("ours", "", "ReadOnly");
            let others = lock("others", "/resourceGroups/other", "ReadOnly");
            return json_answer(200, &json!({"value": [lock("all", "", "CanNotDelete"), ours, others]}));
        }
        if seen.path.ends_with("/Microsoft.Network") {
            return json_answer(200, &json!({"registrationState": "NotRegistered"}));
        }
        let (status, body) = azure(&seen.path);
        json_answer(status, &body)
    });
    let mut demand = demand("Standard_D4s_v5", 1, &[1]);
    demand.image = Image::try_from("Debian:debian-12:12-gen9:1.0".to_owned()).unwrap();
    let (facts, findings) = checked(&script, &demand).await;
    assert_eq!(facts.unregistered, ["Microsoft.Network"]);
    assert_snapshot!(findings, @r"
    Warning: Microsoft.Network: need Registered; have NotRegistered. It has to be registered first, which takes a minute or two.
    Error: image: need Debian:debian-12:12-gen9:1.0 in westus2; have NotFound. Check publisher, offer, sku and version of the image.
    Warning: lock all: need to delete the cluster later; have nothing can be deleted. Remove the lock (Azure portal: Locks), or use another subscription.
    Error: lock ours: need to create resources; have everything is read-only. Remove the lock (Azure portal: Locks), or use another subscription.
    ");
}

#[tokio::test(start_paused = true)]
async fn several_subscriptions_are_a_question_and_one_is_taken() {
    let subscriptions = |ids: &'static [&'static str]| {
        let one = |id: &&str| json!({"subscriptionId": id, "displayName": format!("Name of {id}"), "state": "Warned"});
        Script::arm(move |seen| match seen.path.as_str() {
            "/subscriptions" => json_answer(200, &json!({"value": ids.iter().map(one).collect::<Vec<_>>()})),
            path => {
                let (status, body) = azure(path);
                json_answer(status, &body)
            }
        })
    };
    let demand = demand("Standard_D4s_v5", 1, &[1]);
    let call = Call::within(Duration::from_secs(60));
    let client = subscriptions(&["a", "b"]).client_without_subscription();
    let Report { findings, .. } = preflight(&client, &demand, call).await.unwrap();
    assert_eq!((findings.len(), findings[0].have.as_str()), (1, "a (Name of a), b (Name of b)"));
    let client = subscriptions(&["a"]).client_without_subscription();
    let Report { facts, findings } = preflight(&client, &demand, call).await.unwrap();
    assert_eq!((facts.subscription.as_str(), client.subscription()), ("a", Some("a")));
    assert_eq!((findings.len(), findings[0].severity, findings[0].have.as_str()), (1, Severity::Warning, "Warned"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_the_only_finding() {
    let script =
        Script::new(|_| answer(401, r#"{"error":"invalid_client","error_description":"AADSTS7000222: expired"}"#));
    let (_, findings) = checked(&script, &demand("Standard_D4s_v5", 1, &[1])).await;
    assert_snapshot!(findings, @"Error: login: need a credential that Azure accepts; have login refused: AADSTS7000222: expired. The client secret has expired: create a new one for the application.");
}

#[tokio::test(start_paused = true)]
async fn an_azure_that_cannot_be_asked_is_an_error() {
    let script = Script::arm(|_| answer(503, ""));
    let (client, demand) = (script.client(), demand("Standard_D4s_v5", 1, &[1]));
    let report = preflight(&client, &demand, Call::within(Duration::from_secs(30)));
    assert_eq!(report.await.unwrap_err().class, ErrorClass::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn registering_waits_until_it_is_done() {
    let start = Instant::now();
    let script = Script::arm(move |_| {
        let state = if start.elapsed() < Duration::from_secs(12) { "Registering" } else { "Registered" };
        json_answer(200, &json!({"registrationState": state}))
    });
    let call = Call::within(Duration::from_secs(60));
    register(&Intent::for_tests(), &script.client(), "sub", "Microsoft.Compute", call, &|_| {}).await.unwrap();
    assert_eq!(script.lines()[0], "POST /subscriptions/sub/providers/Microsoft.Compute/register");
    assert_eq!(start.elapsed(), Duration::from_secs(15));
}

/// The same Azure, in whose region no size has a zone.
fn without_zones() -> Script {
    Script::arm(|seen| {
        let (status, mut body) = azure(&seen.path);
        let sizes = body.get_mut("value").and_then(Value::as_array_mut).into_iter().flatten();
        sizes.filter_map(|size| size.get_mut("locationInfo")).for_each(|info| info[0]["zones"] = json!([]));
        json_answer(status, &body)
    })
}

#[tokio::test(start_paused = true)]
async fn a_region_without_zones_is_named_once_with_the_keys_to_set() {
    let call = Call::within(Duration::from_secs(60));
    let found = async |zones: &[u8]| {
        preflight(&without_zones().client(), &demand("Standard_D4s_v5", 1, zones), call).await.unwrap().findings
    };
    let findings: Vec<String> = found(&[1, 2]).await.iter().map(ToString::to_string).collect();
    assert_snapshot!(findings.join("\n"), @"zones: need 1, 2; have none: westus2 has no availability zones. Set cluster.controllers.zones and cluster.workers.zones to [] in the configuration, or choose another region.");
    assert_eq!(found(&[]).await, []);
}

#[tokio::test(start_paused = true)]
async fn an_own_image_is_looked_up_where_it_is() {
    const OWN: &str = "/subscriptions/other/resourceGroups/g/providers/Microsoft.Compute/galleries/own/images/debian";
    let version = |name: &str, region: &str, excluded: bool| json!({"name": name, "properties": {"publishingProfile": {"targetRegions": [{"name": region}], "excludeFromLatest": excluded}}});
    let versions = json!([
        version("1.9.0", "West US 2", false),
        version("1.10.0", "West US 2", false),
        version("2.0.0", "West US 2", true),
        version("3.0.0", "East US", false)
    ]);
    let script = Script::arm(move |seen| match seen.path.strip_prefix(OWN) {
        Some("") => json_answer(200, &json!({"properties": {"architecture": "Arm64", "hyperVGeneration": "V2"}})),
        Some("/versions") => json_answer(200, &json!({"value": versions})),
        _ => {
            let (status, body) = azure(&seen.path);
            json_answer(status, &body)
        }
    });
    let client = script.client();
    let look = async |image: String, size: &str| {
        let demand = Demand { image: Image::try_from(image).unwrap(), ..demand(size, 1, &[1]) };
        preflight(&client, &demand, Call::within(Duration::from_secs(60))).await.unwrap()
    };
    let fits = look(OWN.to_owned(), "Standard_D4ps_v5").await;
    assert_eq!((fits.facts.image_version.as_str(), fits.findings), ("1.10.0", vec![]));
    let report = look(OWN.to_owned(), "Standard_D4s_v5").await;
    assert!(report.findings[0].to_string().contains("Arm64, as the image"), "{:?}", report.findings);
    let elsewhere = look(format!("{OWN}/versions/3.0.0"), "Standard_D4ps_v5").await;
    assert_snapshot!(elsewhere.findings[0], @"image: need /subscriptions/other/resourceGroups/g/providers/Microsoft.Compute/galleries/own/images/debian/versions/3.0.0 in westus2; have ImageNotFound: no version of it is in the region. Check the id of the image, and that its version is replicated to the region.");
    assert!(script.seen().iter().any(|seen| seen.path == OWN && seen.query == "api-version=2023-07-03"));
}
