//! Resource Manager, asked as a client would.

mod real_clients;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use super::{SUBSCRIPTION, Service, TENANT, call::Call, handle};
use crate::{Fault, FaultKind, Options, Twin, http::Received};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB1UMWzKPRDm0dKPk3Qn9m2GYzWdxb0GYdy5lNHRu1fe test";
const VERSION: &str = "api-version=2024-11-01";

/// A client that is logged in.
struct Client {
    twin: Twin,
    token: String,
}

struct Answered {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
}

impl Answered {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

fn ask(twin: &Twin, service: Service, method: &str, url: &str, headers: &[(&str, &str)], body: String) -> Answered {
    let mut request = Request::builder().method(method).uri(url).header("host", "management.azure.com");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).expect("a request").into_parts();
    let call = Call::new(&Received { head, body: Bytes::from(body) });
    let reply = twin.with(|world| handle(world, service, &call));
    let body = serde_json::from_str(&reply.body).unwrap_or(Value::Null);
    Answered { status: reply.status, headers: reply.headers, body }
}

impl Client {
    fn new(options: Options) -> Self {
        let twin = Twin::new(options);
        let form = "grant_type=client_credentials&client_id=me&client_secret=s&scope=https%3A%2F%2Fmanagement.azure.com%2F.default";
        let url = format!("/{TENANT}/oauth2/v2.0/token");
        let answered = ask(&twin, Service::Login, "POST", &url, &[], form.into());
        assert_eq!(answered.status, 200, "{}", answered.body);
        let token = answered.body["access_token"].as_str().expect("a token").to_owned();
        Self { twin, token }
    }

    fn ask(&self, method: &str, path: &str, body: Value) -> Answered {
        self.ask_with(method, path, &[], body)
    }

    fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answered {
        let separator = if path.contains('?') { '&' } else { '?' };
        let url = format!("/subscriptions/{SUBSCRIPTION}{path}{separator}{VERSION}");
        let bearer = format!("Bearer {}", self.token);
        let headers: Vec<(&str, &str)> =
            [("authorization", bearer.as_str())].into_iter().chain(headers.iter().copied()).collect();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        ask(&self.twin, Service::ResourceManager, method, &url, &headers, body)
    }

    fn get(&self, path: &str) -> Answered {
        self.ask("GET", path, Value::Null)
    }

    fn delete(&self, path: &str) -> Answered {
        self.ask("DELETE", path, Value::Null)
    }

    fn put(&self, path: &str, body: Value) -> Answered {
        self.ask("PUT", path, body)
    }

    /// Polls an operation to its end; answers its last status.
    async fn finish(&self, answered: &Answered) -> Value {
        let url = answered.header("azure-asyncoperation");
        let path = url.split(SUBSCRIPTION).nth(1).and_then(|rest| rest.split('?').next()).expect("an operation");
        for _ in 0..400 {
            let status = self.get(path);
            assert_eq!(status.status, 200, "{}", status.body);
            if status.body["status"] != "InProgress" {
                return status.body;
            }
            pass(5).await;
        }
        panic!("the operation never ended");
    }

    async fn succeed(&self, path: &str, body: Value) -> Value {
        let answered = self.put(path, body);
        assert!([200, 201].contains(&answered.status), "{}", answered.body);
        let ended = self.finish(&answered).await;
        assert_eq!(ended["status"], "Succeeded", "{ended}");
        self.get(path).body
    }

    fn fault(&self, name: FaultKind, target: Option<&str>, times: Option<u32>) {
        let fault = Fault { name, target: target.map(String::from), times };
        self.twin.with(|world| world.faults.active.push(fault));
    }

    /// A group, a network with a security group that lets SSH in, and an interface with an address for each name.
    async fn lay_out(&self, names: &[&str]) {
        let created = self.put(
            "/resourceGroups/Rg",
            json!({"location": "westus2", "tags": {"k0rdent-cluster-id": "k0rdent-abcdefgh"}}),
        );
        assert_eq!(created.status, 201, "{}", created.body);
        self.succeed(&network("networkSecurityGroups/nsg"), security_group()).await;
        self.succeed(&network("virtualNetworks/vnet"), virtual_network(&["nodes"])).await;
        for name in names {
            self.succeed(&network(&format!("publicIPAddresses/{name}-pip")), public_address()).await;
            self.succeed(&network(&format!("networkInterfaces/{name}-nic")), interface(name)).await;
        }
    }
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

fn network(rest: &str) -> String {
    format!("/resourceGroups/Rg/providers/Microsoft.Network/{rest}")
}

fn machine(name: &str) -> String {
    format!("/resourceGroups/Rg/providers/Microsoft.Compute/virtualMachines/{name}")
}

fn id(path: &str) -> Value {
    json!({"id": format!("/subscriptions/{SUBSCRIPTION}{path}")})
}

fn security_group() -> Value {
    json!({"location": "westus2", "properties": {"securityRules": [{"name": "ssh", "properties": {
        "priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "*",
        "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "22"}}]}})
}

fn virtual_network(subnets: &[&str]) -> Value {
    let subnets: Vec<Value> = subnets
        .iter()
        .enumerate()
        .map(|(index, name)| {
            json!({"name": name, "properties": {
                "addressPrefix": format!("10.0.{index}.0/24"), "networkSecurityGroup": id(&network("networkSecurityGroups/nsg"))}})
        })
        .collect();
    json!({"location": "westus2", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": subnets}})
}

fn public_address() -> Value {
    json!({"location": "westus2", "sku": {"name": "Standard"}, "properties": {"publicIPAllocationMethod": "Static"}})
}

fn interface(name: &str) -> Value {
    json!({"location": "westus2", "properties": {"ipConfigurations": [{"name": "ip", "properties": {
        "subnet": id(&network("virtualNetworks/vnet/subnets/nodes")),
        "publicIPAddress": {"id": id(&network(&format!("publicIPAddresses/{name}-pip")))["id"], "properties": {"deleteOption": "Delete"}}}}]}})
}

fn virtual_machine(name: &str, zone: &str) -> Value {
    json!({"location": "westus2", "zones": [zone], "tags": {"role": "worker"}, "properties": {
        "hardwareProfile": {"vmSize": "Standard_B2s"},
        "storageProfile": {
            "imageReference": {"publisher": "Debian", "offer": "debian-12", "sku": "12-gen2", "version": "latest"},
            "osDisk": {"name": format!("{name}-os"), "createOption": "FromImage", "deleteOption": "Delete"}},
        "osProfile": {"computerName": name, "adminUsername": "k0rdent", "customData": "I2Nsb3VkLWNvbmZpZwo=",
            "linuxConfiguration": {"disablePasswordAuthentication": true, "ssh": {"publicKeys": [
                {"path": "/home/k0rdent/.ssh/authorized_keys", "keyData": KEY}]}}},
        "networkProfile": {"networkInterfaces": [{
            "id": id(&network(&format!("networkInterfaces/{name}-nic")))["id"], "properties": {"primary": true, "deleteOption": "Delete"}}]}}})
}

#[tokio::test(start_paused = true)]
async fn strangers_are_turned_away() {
    let client = Client::new(Options::default());
    let url = format!("/subscriptions/{SUBSCRIPTION}?{VERSION}");
    let refused = ask(&client.twin, Service::ResourceManager, "GET", &url, &[], String::new());
    assert_eq!((refused.status, refused.code()), (401, "AuthenticationFailed"));
    assert!(refused.header("www-authenticate").contains("authorization_uri"));
    let unknown = [("authorization", "Bearer nonsense")];
    let refused = ask(&client.twin, Service::ResourceManager, "GET", &url, &unknown, String::new());
    assert_eq!(refused.code(), "InvalidAuthenticationToken");
    let bearer = format!("Bearer {}", client.token);
    let known = [("authorization", bearer.as_str())];
    let refused = ask(&client.twin, Service::ResourceManager, "GET", "/subscriptions", &known, String::new());
    assert_eq!((refused.status, refused.code()), (400, "MissingApiVersionParameter"));
    let other = "/subscriptions/11111111-0000-0000-0000-000000000000?api-version=2022-12-01";
    let refused = ask(&client.twin, Service::ResourceManager, "GET", other, &known, String::new());
    assert_eq!((refused.status, refused.code()), (404, "SubscriptionNotFound"));
    pass(3600).await;
    assert_eq!(client.get("").code(), "ExpiredAuthenticationToken");
    let form = "grant_type=client_credentials&client_id=me&client_secret=wrong&scope=x";
    let url = format!("/{TENANT}/oauth2/v2.0/token");
    let refused = ask(&client.twin, Service::Login, "POST", &url, &[], form.into());
    assert_eq!((refused.status, refused.body["error"].as_str()), (401, Some("invalid_client")));
    assert!(refused.body["error_description"].as_str().is_some_and(|text| text.starts_with("AADSTS7000215")));
}

#[tokio::test(start_paused = true)]
async fn groups_are_found_by_tag_and_deleted_with_what_is_in_them() {
    let client = Client::new(Options::default());
    client.lay_out(&["a"]).await;
    let filter = "$filter=tagname%20eq%20'K0rdent-cluster-id'%20and%20tagvalue%20eq%20'k0rdent-abcdefgh'";
    assert_eq!(client.get(&format!("/resourcegroups?{filter}")).body["value"][0]["name"], "Rg");
    let none = client.get(&format!("/resourcegroups?{}", filter.replace("abcdefgh", "other")));
    assert_eq!(none.body["value"], json!([]));
    assert_eq!(client.ask("HEAD", "/resourcegroups/RG", Value::Null).status, 204);
    client.succeed(&machine("a"), virtual_machine("a", "1")).await;
    let deleting = client.delete("/resourcegroups/rg?forceDeletionTypes=Microsoft.Compute/virtualMachines");
    assert_eq!(deleting.status, 202);
    assert_eq!(deleting.header("retry-after"), "15");
    assert_eq!(client.get("/resourcegroups/rg").body["properties"]["provisioningState"], "Deleting");
    let refused = client.put(&network("publicIPAddresses/late"), public_address());
    assert_eq!((refused.status, refused.code()), (409, "ResourceGroupBeingDeleted"));
    let location = deleting
        .header("location")
        .split(SUBSCRIPTION)
        .nth(1)
        .and_then(|rest| rest.split('?').next())
        .map(String::from);
    let location = location.expect("a location");
    assert_eq!(client.get(&location).status, 202);
    pass(1000).await;
    assert_eq!(client.get(&location).status, 200);
    assert_eq!(client.get("/resourcegroups/rg").code(), "ResourceGroupNotFound");
    assert_eq!(client.twin.with(|world| super::resources(world)), Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_made_and_takes_its_parts_with_it() {
    let client = Client::new(Options::default());
    client.lay_out(&["a"]).await;
    let mut body = virtual_machine("a", "1");
    let answered = client.put(&machine("a"), body.clone());
    assert_eq!(answered.status, 201, "{}", answered.body);
    assert_eq!(answered.header("retry-after"), "10");
    assert!(answered.header("location").contains("/operationResults/"));
    assert_eq!(answered.body["properties"]["provisioningState"], "Creating");
    assert!(answered.body["properties"]["osProfile"].get("customData").is_none());
    assert_eq!(client.finish(&answered).await["status"], "Succeeded");
    let shown = client.get(&format!("{}?$expand=instanceView", machine("A"))).body;
    assert_eq!(shown["properties"]["provisioningState"], "Succeeded");
    assert_eq!(shown["properties"]["instanceView"]["statuses"][1]["code"], "PowerState/running");
    let listed = client.get("/providers/Microsoft.Compute/virtualMachines?statusOnly=true").body;
    assert_eq!(listed["value"][0]["properties"]["instanceView"]["statuses"][1]["code"], "PowerState/running");
    let card = client.get(&network("networkInterfaces/a-nic")).body;
    assert_eq!(card["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"], "10.0.0.4");
    assert!(card["properties"]["virtualMachine"]["id"].as_str().is_some_and(|id| id.ends_with("/virtualMachines/a")));
    let address = client.get(&network("publicIPAddresses/a-pip")).body;
    assert_eq!(address["properties"]["ipAddress"], "20.40.0.1");
    assert_eq!(client.put(&machine("a"), body.clone()).status, 200);
    body["properties"]["osProfile"]["customData"] = json!("b3RoZXI=");
    let refused = client.put(&machine("a"), body);
    assert_eq!((refused.status, refused.code()), (409, "PropertyChangeNotAllowed"));
    for (path, code) in [
        (network("networkInterfaces/a-nic"), "NicInUse"),
        (network("publicIPAddresses/a-pip"), "PublicIPAddressCannotBeDeleted"),
        (network("networkSecurityGroups/nsg"), "InUseNetworkSecurityGroupCannotBeDeleted"),
        (network("virtualNetworks/vnet/subnets/nodes"), "InUseSubnetCannotBeDeleted"),
        (network("virtualNetworks/vnet"), "InUseSubnetCannotBeDeleted"),
        ("/resourceGroups/Rg/providers/Microsoft.Compute/disks/a-os".into(), "OperationNotAllowed"),
    ] {
        assert_eq!(client.delete(&path).code(), code, "{path}");
    }
    let replaced = client.put(&network("virtualNetworks/vnet"), virtual_network(&[]));
    assert_eq!(replaced.code(), "InUseSubnetCannotBeDeleted");
    let deleting = client.delete(&machine("a"));
    assert_eq!(deleting.status, 202);
    assert_eq!(client.finish(&deleting).await["status"], "Succeeded");
    let left: Vec<Value> = client.twin.with(|world| super::resources(world));
    let left: Vec<&str> = left.iter().filter_map(|resource| resource["name"].as_str()).collect();
    assert_eq!(left, ["Rg", "nsg", "vnet"]);
    assert_eq!(client.delete(&machine("a")).status, 204);
}

/// Nobody else gets the interface of a machine that could not be made, for a while.
#[tokio::test(start_paused = true)]
async fn an_interface_is_kept_for_a_machine_that_could_not_be_made() {
    let client = Client::new(Options::default());
    client.lay_out(&["a"]).await;
    let quota = Fault { name: FaultKind::Quota, target: None, times: None };
    client.twin.with(|world| world.faults.active = vec![quota]);
    let mut large = virtual_machine("a", "1");
    large["properties"]["hardwareProfile"]["vmSize"] = json!("Standard_D16s_v5");
    assert_eq!(client.put(&machine("a"), large).code(), "OperationNotAllowed");
    client.twin.with(|world| world.faults.active.clear());
    let card = network("networkInterfaces/a-nic");
    let mut other = virtual_machine("b", "1");
    other["properties"]["networkProfile"] = virtual_machine("a", "1")["properties"]["networkProfile"].clone();
    assert_eq!(client.put(&machine("b"), other).code(), "NicReservedForAnotherVm");
    assert_eq!(client.delete(&card).code(), "NicReservedForAnotherVm");
    client.twin.sleep(Duration::from_secs(179)).await;
    assert_eq!(client.delete(&card).code(), "NicReservedForAnotherVm");
    client.twin.sleep(Duration::from_secs(1)).await;
    assert_eq!(client.delete(&card).status, 202);
}

#[tokio::test(start_paused = true)]
async fn the_ledger_names_the_machine() {
    let client = Client::new(Options::default());
    client.lay_out(&["a"]).await;
    client.succeed(&machine("a"), virtual_machine("a", "1")).await;
    let entries = client.twin.with(|world| world.ledger.entries.clone());
    let about: Vec<&str> =
        entries.iter().filter(|entry| entry.node.as_deref() == Some("a")).map(|entry| entry.verb.as_str()).collect();
    assert_eq!(about.iter().filter(|verb| **verb == "PUT").count(), 3);
    assert!(about.iter().filter(|verb| **verb == "GET").count() > 3, "polls of operations too");
    let changes: Vec<(&str, &str)> =
        entries.iter().filter(|entry| entry.kind == "change").map(|entry| (entry.actor, entry.verb.as_str())).collect();
    assert!(changes.contains(&("arm", "created")) && changes.contains(&("world", "succeeded")));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused() {
    let client = Client::new(Options::default());
    client.lay_out(&["a", "b"]).await;
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut body = virtual_machine("a", "1");
        change(&mut body);
        let answered = client.put(&machine("a"), body);
        (answered.status, answered.code().to_owned())
    };
    let fails = |status: u16, code: &str| (status, code.to_owned());
    let image = "/properties/storageProfile/imageReference/sku";
    let set = |body: &mut Value, pointer: &str, value: Value| {
        if let Some(place) = body.pointer_mut(pointer) {
            *place = value;
        }
    };
    assert_eq!(refused(&|body| set(body, image, json!("12-arm64"))), fails(400, "BadRequest"));
    assert_eq!(refused(&|body| set(body, image, json!("99"))), fails(404, "PlatformImageNotFound"));
    assert_eq!(
        refused(&|body| set(body, "/properties/hardwareProfile/vmSize", json!("Standard_X"))),
        fails(400, "InvalidParameter")
    );
    assert_eq!(refused(&|body| set(body, "/zones/0", json!("4"))), fails(400, "InvalidParameter"));
    assert_eq!(
        refused(&|body| set(body, "/properties/osProfile/adminUsername", json!("root"))),
        fails(400, "InvalidParameter")
    );
    assert_eq!(
        refused(&|body| set(body, "/properties/osProfile/customData", json!("%"))),
        fails(400, "InvalidParameter")
    );
    let restricted = |body: &mut Value| {
        set(body, image, json!("12-arm64"));
        set(body, "/properties/hardwareProfile/vmSize", json!("Standard_D2pls_v5"));
        set(body, "/zones/0", json!("3"));
    };
    assert_eq!(refused(&restricted), fails(409, "SkuNotAvailable"));
    let nowhere = "/properties/networkProfile/networkInterfaces/0/id";
    assert_eq!(
        refused(&|body| set(body, nowhere, id(&network("networkInterfaces/none"))["id"].clone())),
        fails(404, "NotFound")
    );
    client.succeed(&machine("a"), virtual_machine("a", "1")).await;
    let mut second = virtual_machine("b", "1");
    set(&mut second, nowhere, id(&network("networkInterfaces/a-nic"))["id"].clone());
    assert_eq!(client.put(&machine("b"), second).code(), "NicInUse");
    let again = client.ask_with("PUT", &machine("a"), &[("if-none-match", "*")], virtual_machine("a", "1"));
    assert_eq!((again.status, again.code()), (412, "PreconditionFailed"));
    let mut same_address = interface("b");
    let properties = "/properties/ipConfigurations/0/properties";
    set(
        &mut same_address,
        properties,
        json!({
        "subnet": id(&network("virtualNetworks/vnet/subnets/nodes")), "privateIPAllocationMethod": "Static", "privateIPAddress": "10.0.0.4"}),
    );
    let path = network("networkInterfaces/c-nic");
    assert_eq!(client.put(&path, same_address.clone()).code(), "PrivateIPAddressInUse");
    set(&mut same_address, &format!("{properties}/privateIPAddress"), json!("10.1.0.4"));
    assert_eq!(client.put(&path, same_address.clone()).code(), "PrivateIPAddressNotInSubnet");
    set(&mut same_address, &format!("{properties}/subnet"), id(&network("virtualNetworks/vnet/subnets/none")));
    assert_eq!(client.put(&path, same_address).code(), "InvalidResourceReference");
    let elsewhere =
        client.put("/resourceGroups/none/providers/Microsoft.Network/publicIPAddresses/x", public_address());
    assert_eq!(elsewhere.code(), "ResourceGroupNotFound");
}

#[tokio::test(start_paused = true)]
async fn capacity_quota_and_operations_fail_on_demand() {
    let client = Client::new(Options::default());
    client.lay_out(&["a", "b"]).await;
    client.fault(FaultKind::Capacity, Some("zone-1"), Some(1));
    let answered = client.put(&machine("a"), virtual_machine("a", "1"));
    assert_eq!(answered.status, 201);
    let ended = client.finish(&answered).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("Failed"), &json!("ZonalAllocationFailed")));
    assert_eq!(client.get(&machine("a")).body["properties"]["provisioningState"], "Failed");
    let retried = client.put(&machine("a"), virtual_machine("a", "1"));
    assert_eq!(retried.status, 200);
    assert_eq!(client.finish(&retried).await["status"], "Succeeded");
    client.fault(FaultKind::Quota, None, None);
    let mut large = virtual_machine("b", "1");
    large["properties"]["hardwareProfile"]["vmSize"] = json!("Standard_D16s_v5");
    let refused = client.put(&machine("b"), large);
    assert_eq!((refused.status, refused.code()), (409, "OperationNotAllowed"));
    let message = refused.body["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("exceeding approved Total Regional Cores quota"), "{message}");
    assert!(message.contains("Current Limit: 10, Current Usage: 2, Additional Required: 16"), "{message}");
    let usages = client.get("/providers/Microsoft.Compute/locations/westus2/usages").body;
    assert_eq!((&usages["value"][0]["limit"], &usages["value"][0]["currentValue"]), (&json!(10), &json!(2)));
    client.fault(FaultKind::OperationFailure, Some("c-pip"), Some(1));
    let answered = client.put(&network("publicIPAddresses/c-pip"), public_address());
    let ended = client.finish(&answered).await;
    assert_eq!(ended["error"]["code"], "InternalOperationError");
    client.succeed(&network("publicIPAddresses/c-pip"), public_address()).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_never_reports_times_out() {
    let client = Client::new(Options::default());
    client.lay_out(&["a"]).await;
    client.fault(FaultKind::BootFailure, Some("a"), None);
    let answered = client.put(&machine("a"), virtual_machine("a", "2"));
    pass(19 * 60).await;
    assert_eq!(client.get(&machine("a")).body["properties"]["provisioningState"], "Creating");
    let ended = client.finish(&answered).await;
    assert_eq!(ended["error"]["code"], "OSProvisioningTimedOut");
}

#[tokio::test(start_paused = true)]
async fn requests_are_throttled_and_counted() {
    let client = Client::new(Options::default());
    assert_eq!(client.get("").header("x-ms-ratelimit-remaining-subscription-reads"), "249");
    client.fault(FaultKind::Throttle, None, Some(1));
    let refused = client.get("");
    assert_eq!((refused.status, refused.header("retry-after")), (429, "5"));
    client.fault(FaultKind::ServerError, None, Some(1));
    assert_eq!(client.get("").status, 503);
    let answered: Vec<u16> = (0..260).map(|_| client.get("").status).collect();
    assert_eq!(answered.iter().filter(|status| **status == 429).count(), 11);
    pass(1).await;
    assert_eq!(client.get("").status, 200);
    let quick = Client::new(Options { speed: 10.0, ..Options::default() });
    quick.fault(FaultKind::Throttle, None, Some(1));
    assert_eq!(quick.get("").header("retry-after-ms"), "500");
}

#[tokio::test(start_paused = true)]
async fn machines_stop_start_and_are_evicted() {
    let client = Client::new(Options::default());
    client.lay_out(&["a"]).await;
    let mut body = virtual_machine("a", "1");
    body["properties"]["hardwareProfile"]["vmSize"] = json!("Standard_D2s_v5");
    body["properties"]["priority"] = json!("Spot");
    body["properties"]["evictionPolicy"] = json!("Deallocate");
    client.succeed(&machine("a"), body).await;
    let power = || client.get(&format!("{}/instanceView", machine("a"))).body["statuses"][1]["code"].clone();
    for (action, during, after) in [
        ("deallocate", "PowerState/deallocating", "PowerState/deallocated"),
        ("start", "PowerState/starting", "PowerState/running"),
        ("restart", "PowerState/starting", "PowerState/running"),
    ] {
        let answered = client.ask("POST", &format!("{}/{action}", machine("a")), Value::Null);
        assert_eq!((answered.status, power()), (202, json!(during)), "{action}");
        assert_eq!(client.finish(&answered).await["status"], "Succeeded");
        assert_eq!(power(), after);
    }
    assert_eq!(client.ask("POST", &format!("{}/simulateEviction", machine("a")), Value::Null).status, 204);
    pass(120).await;
    assert_eq!(power(), "PowerState/deallocated");
}

#[tokio::test(start_paused = true)]
async fn locks_hold() {
    let client = Client::new(Options::default());
    client.lay_out(&[]).await;
    let lock = "/resourceGroups/Rg/providers/Microsoft.Authorization/locks/keep";
    assert_eq!(client.put(lock, json!({"properties": {"level": "CanNotDelete"}})).status, 201);
    assert_eq!(client.delete("/resourceGroups/rg").code(), "ScopeLocked");
    assert_eq!(client.delete(&network("virtualNetworks/vnet")).code(), "ScopeLocked");
    let listed = client.get("/resourceGroups/Rg/providers/Microsoft.Authorization/locks");
    assert_eq!(listed.body["value"][0]["name"], "keep");
    assert_eq!(client.delete(lock).status, 200);
    assert_eq!(client.delete("/resourceGroups/rg").status, 202);
}

#[tokio::test(start_paused = true)]
async fn rules_and_subnets_are_written_one_by_one() {
    let client = Client::new(Options::default());
    client.lay_out(&[]).await;
    let rule = json!({"properties": {"priority": 110, "direction": "Inbound", "access": "Allow", "protocol": "Udp",
        "sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "51820"}});
    let path = network("networkSecurityGroups/nsg/securityRules/mesh");
    let answered = client.put(&path, rule.clone());
    assert_eq!((answered.status, &answered.body["name"]), (201, &json!("mesh")), "{}", answered.body);
    let collided = client.put(&network("networkSecurityGroups/nsg/securityRules/other"), rule.clone());
    assert_eq!((collided.status, collided.code()), (429, "RetryableErrorDueToAnotherOperation"));
    assert_eq!(client.finish(&answered).await["status"], "Succeeded");
    let conflict = client.put(&network("networkSecurityGroups/nsg/securityRules/other"), rule);
    assert_eq!(conflict.code(), "SecurityRuleConflict");
    let deleting = client.delete(&path);
    assert_eq!(deleting.status, 202);
    assert_eq!(client.finish(&deleting).await["status"], "Succeeded");
    assert_eq!(client.get(&path).status, 404);
    let defaults = client.get(&network("networkSecurityGroups/nsg/defaultSecurityRules"));
    assert_eq!(defaults.body["value"].as_array().map(Vec::len), Some(6));
    let subnet = network("virtualNetworks/vnet/subnets/more");
    let answered = client.put(&subnet, json!({"properties": {"addressPrefix": "10.0.9.0/24"}}));
    assert_eq!(client.finish(&answered).await["status"], "Succeeded");
    assert_eq!(
        client.get(&network("virtualNetworks/vnet")).body["properties"]["subnets"].as_array().map(Vec::len),
        Some(2)
    );
}

#[tokio::test(start_paused = true)]
async fn listings_lag_and_go_on_over_pages() {
    let client = Client::new(Options::default());
    client.put("/resourceGroups/Rg", json!({"location": "West US 2"}));
    let key = |name: &str| format!("/resourceGroups/Rg/providers/Microsoft.Compute/sshPublicKeys/{name}");
    let body = json!({"location": "westus2", "tags": {"k": "v"}, "properties": {"publicKey": KEY}});
    assert_eq!(client.put(&key("admin"), body.clone()).status, 201);
    let filtered = "/resources?$filter=tagName%20eq%20'k'%20and%20tagValue%20eq%20'v'";
    assert_eq!(client.get(filtered).body["value"], json!([]));
    pass(4).await;
    let listed = client.get(filtered).body;
    assert_eq!(listed["value"][0]["name"], "admin");
    assert!(listed["value"][0].get("tags").is_none(), "a list by tag does not show tags");
    assert_eq!(client.delete(&key("admin")).status, 200);
    assert_eq!(client.get("/resourcegroups/rg/resources").body["value"][0]["name"], "admin");
    pass(4).await;
    assert_eq!(client.get("/resourcegroups/rg/resources").body["value"], json!([]));
    for number in 0..310 {
        assert_eq!(client.put(&key(&format!("key{number}")), body.clone()).status, 201);
        pass(1).await;
    }
    let first = client.get("/resourcegroups/rg/providers/Microsoft.Compute/sshPublicKeys").body;
    assert_eq!(first["value"].as_array().map(Vec::len), Some(300));
    let next = first["nextLink"].as_str().and_then(|link| link.split(SUBSCRIPTION).nth(1)).expect("another page");
    let second = client.get(next).body;
    assert_eq!((second["value"].as_array().map(Vec::len), second.get("nextLink")), (Some(10), None));
}

#[tokio::test(start_paused = true)]
async fn sizes_and_images_are_listed() {
    let client = Client::new(Options::default());
    let skus = client.get("/providers/Microsoft.Compute/skus?$filter=location%20eq%20'westus2'").body;
    let restricted =
        skus["value"].as_array().into_iter().flatten().find(|sku| sku["name"] == "Standard_D2pls_v5").cloned();
    let restricted = restricted.expect("the size");
    assert_eq!(restricted["restrictions"][0]["restrictionInfo"]["zones"], json!(["3"]));
    let versions = "/providers/Microsoft.Compute/locations/westus2/publishers/Debian/artifacttypes/vmimage/offers/debian-12/skus/12-arm64/versions";
    let latest = client.get(&format!("{versions}?$top=1&$orderby=name%20desc")).body;
    assert_eq!(latest.as_array().map(Vec::len), Some(1), "a bare array");
    let version = latest[0]["name"].as_str().unwrap_or_default().to_owned();
    assert_eq!(client.get(&format!("{versions}/{version}")).body["properties"]["architecture"], "Arm64");
    assert_eq!(client.get(&versions.replace("12-arm64", "none")).status, 404);
}

/// The whole way: connection, TLS with the world's authority, HTTP, and the time it takes.
#[tokio::test(start_paused = true)]
async fn it_answers_over_tls() {
    use std::sync::Arc;

    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::TokioIo;
    use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};

    let twin = Twin::new(Options::default());
    let _driving = tokio::spawn(twin.clone().drive());
    let ca = twin.with(|world| world.azure.ca_pem());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("a certificate");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = twin.connect("management.azure.com", 443).await.expect("a connection");
    let name = ServerName::try_from("management.azure.com").expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let _connected = tokio::spawn(connection);
    let request = Request::get("/metadata/endpoints?api-version=2022-09-01").header("host", "management.azure.com");
    let began = tokio::time::Instant::now();
    let response =
        sender.send_request(request.body(Full::<Bytes>::default()).expect("a request")).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["authentication"]["loginEndpoint"], "https://login.microsoftonline.com");
    assert!(began.elapsed() > Duration::from_millis(10), "an answer takes time");
}

#[tokio::test(start_paused = true)]
async fn security_rules_decide_by_address_and_port_and_the_lowest_number_wins() {
    let rule = |priority: u32, access: &str, sources: &Value, ports: &str| {
        json!({"name": format!("rule-{priority}"), "properties": {
            "priority": priority, "direction": "Inbound", "access": access, "protocol": "Tcp", "sourcePortRange": "*",
            "sourceAddressPrefixes": sources, "destinationAddressPrefix": "*", "destinationPortRange": ports}})
    };
    let office = json!(["198.51.100.0/24", "203.0.113.7/32"]);
    for (rules, open_to) in [
        (vec![], &[][..]),
        (vec![rule(200, "Allow", &office, "22")], &["198.51.100.9", "203.0.113.7"]),
        (vec![rule(200, "Allow", &office, "20-30")], &["198.51.100.9", "203.0.113.7"]),
        (vec![rule(200, "Allow", &office, "443")], &[]),
        (
            vec![rule(200, "Allow", &json!(["*"]), "22"), rule(100, "Deny", &json!(["198.51.100.9"]), "*")],
            &["203.0.113.7", "192.0.2.1"],
        ),
        (vec![rule(200, "Allow", &json!(["VirtualNetwork"]), "22")], &[]),
        (vec![rule(200, "Allow", &json!(["Internet"]), "22")], &["198.51.100.9", "203.0.113.7", "192.0.2.1"]),
    ] {
        let world = Client::new(Options::default());
        world.lay_out(&["a"]).await;
        let group = json!({"location": "westus2", "properties": {"securityRules": rules}});
        world.succeed(&network("networkSecurityGroups/nsg"), group).await;
        world.succeed(&machine("a"), virtual_machine("a", "1")).await;
        let path = format!("/subscriptions/{SUBSCRIPTION}{}", machine("a"));
        let clients = ["198.51.100.9", "203.0.113.7", "192.0.2.1"];
        let is_let_in = |client: &&&str| {
            let client = client.parse().expect("an address");
            world.twin.with(|world| super::lets_in(world, &path, client, 22))
        };
        let open: Vec<&str> = clients.iter().filter(is_let_in).copied().collect();
        assert_eq!(open, open_to, "{rules:?}");
    }
}
