//! What the Azure CLI needs and the twin once lacked: deployments, tags at a scope, the activity log, updates of machines.

use super::*;

const DEPLOYMENT: &str = "/resourceGroups/Rg/providers/Microsoft.Resources/deployments/one";

fn group_of(client: &Client) {
    assert_eq!(client.put("/resourceGroups/Rg", json!({"location": "westus2", "tags": {"a": "b"}})).status, 201);
}

/// A security group, and a network that refers to it without saying that it depends on it.
fn template() -> Value {
    json!({
        "parameters": {"name": {"type": "string"}, "secret": {"type": "secureString", "defaultValue": "hidden"}},
        "resources": [
            {
                "type": "Microsoft.Network/virtualNetworks", "apiVersion": "2024-05-01", "name": "vnet",
                "location": "[reference(parameters('name'), '2024-05-01', 'Full').location]", "tags": null,
                "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}},
            },
            {
                "type": "Microsoft.Network/virtualNetworks/subnets", "apiVersion": "2024-05-01", "name": "vnet/nodes",
                "dependsOn": ["vnet"], "properties": {"addressPrefix": "10.0.0.0/24"},
            },
            {
                "type": "Microsoft.Network/networkSecurityGroups", "apiVersion": "2024-05-01",
                "name": "[parameters('name')]", "location": "[resourceGroup().location]",
            },
        ],
        "outputs": {"subnets": {"type": "int", "value": "[length(reference('vnet').subnets)]"}},
    })
}

fn deployment(template: &Value) -> Value {
    json!({"properties": {"mode": "Incremental", "template": template, "parameters": {"name": {"value": "nsg"}}}})
}

impl Client {
    /// Deploys and waits for the end; answers the deployment.
    async fn deploy(&self, template: &Value) -> Value {
        let answered = self.put(DEPLOYMENT, deployment(template));
        assert_eq!((answered.status, self.get(DEPLOYMENT).status), (201, 200), "{}", answered.body);
        assert!(answered.header("azure-asyncoperation").contains("/deployments/one/operationStatuses/"));
        let ended = self.finish(&answered).await;
        let shown = self.get(DEPLOYMENT).body;
        assert_eq!(ended["status"], shown["properties"]["provisioningState"]);
        assert_eq!(ended["error"], shown["properties"]["error"]);
        shown["properties"].clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_template_is_deployed_in_the_order_of_its_references() {
    let client = Client::new(Options::default());
    group_of(&client);
    let done = client.deploy(&template()).await;
    assert_eq!(done["outputs"], json!({"subnets": {"type": "Int", "value": 1}}));
    assert_eq!(done["parameters"]["secret"], json!({"type": "SecureString"}));
    assert_eq!(done["dependencies"][0]["dependsOn"][0]["resourceName"], "vnet");
    let vnet = client.get(&network("virtualNetworks/vnet")).body;
    assert_eq!(vnet["location"], "westus2");
    assert!(vnet.get("tags").is_none(), "null is not there: {vnet}");
    let operations = client.get("/resourceGroups/Rg/deployments/one/operations").body;
    assert_eq!(operations["value"].as_array().map(Vec::len), Some(3));
    let changes = client.twin.with(|world| {
        let changes = world.ledger.entries.iter().filter(|entry| entry.verb == "created");
        changes.map(|entry| entry.object.rsplit('/').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(changes, ["Rg", "one", "nsg", "vnet"]);
    assert_eq!(client.delete(DEPLOYMENT).status, 202);
    assert_eq!(client.get(DEPLOYMENT).code(), "DeploymentNotFound");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_fails_with_what_the_provider_said() {
    let client = Client::new(Options::default());
    group_of(&client);
    client.fault(FaultKind::OperationFailure, Some("nsg"), None);
    let failed = client.deploy(&template()).await;
    assert_eq!(failed["error"]["code"], "DeploymentFailed");
    assert_eq!(failed["error"]["details"][0]["code"], "InternalOperationError");
    assert_eq!(client.get(&network("virtualNetworks/vnet")).status, 404, "what depends on it is not begun");
    client.delete(DEPLOYMENT);
    let mut circle = template();
    circle["resources"][2]["location"] = json!("[reference('vnet', '2024-05-01', 'Full').location]");
    let failed = client.deploy(&circle).await;
    assert_eq!(failed["error"]["details"][0]["code"], "InvalidTemplate");
}

#[tokio::test(start_paused = true)]
async fn templates_that_make_no_sense_are_refused() {
    let client = Client::new(Options::default());
    group_of(&client);
    let change = |pointer: &str, value: Value| {
        let mut changed = template();
        *changed.pointer_mut(pointer).expect("a part of the template") = value;
        changed
    };
    for (broken, status, code) in [
        (change("/resources/1/dependsOn", json!(["nothing"])), 400, "InvalidTemplate"),
        (change("/resources/1/dependsOn", json!(["vnet/nodes"])), 400, "InvalidTemplate"),
        (change("/resources/1/name", json!("nodes")), 400, "InvalidTemplate"),
        (change("/resources/1/name", json!("[variables('x')]")), 400, "InvalidTemplate"),
        (change("/resources/2/type", json!("Microsoft.Storage/storageAccounts")), 501, "NotImplementedByTwin"),
        (change("/parameters/name/type", json!("int")), 400, "InvalidTemplate"),
        (change("/parameters/secret", json!({"type": "string"})), 400, "InvalidTemplate"),
    ] {
        for (method, path) in [("PUT", DEPLOYMENT.to_owned()), ("POST", format!("{DEPLOYMENT}/validate"))] {
            let refused = client.ask(method, &path, deployment(&broken));
            assert_eq!((refused.status, refused.code()), (status, code), "{}", refused.body);
        }
    }
    let complete = json!({"properties": {"mode": "Complete", "template": template()}});
    assert_eq!(client.put(DEPLOYMENT, complete).status, 501);
    assert_eq!(client.get(DEPLOYMENT).status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_predicted() {
    let client = Client::new(Options::default());
    group_of(&client);
    let predict = async |template: &Value| {
        let answered = client.ask("POST", &format!("{DEPLOYMENT}/whatIf"), deployment(template));
        assert_eq!(answered.status, 202, "{}", answered.body);
        let url = answered.header("location").split(SUBSCRIPTION).nth(1).and_then(|rest| rest.split('?').next());
        let url = url.expect("a path").to_owned();
        assert_eq!(client.get(&url).status, 202);
        pass(5).await;
        let body = client.get(&url).body;
        let changes = body["properties"]["changes"].as_array().cloned().unwrap_or_default();
        changes.iter().map(|change| change["changeType"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    client.succeed(&network("networkSecurityGroups/other"), json!({"location": "westus2"})).await;
    assert_eq!(predict(&template()).await, ["Create", "Create", "Create", "Ignore"]);
    client.deploy(&template()).await;
    assert_eq!(predict(&template()).await, ["NoChange", "NoChange", "NoChange", "Ignore"]);
    let mut other = template();
    other["resources"][2]["tags"] = json!({"new": "tag"});
    assert_eq!(predict(&other).await, ["NoChange", "NoChange", "Modify", "Ignore"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_of_a_machine_can_be_written_back() {
    let client = Client::new(Options::default());
    client.lay_out(&["a"]).await;
    client.succeed(&machine("a"), virtual_machine("a", "1")).await;
    let mut read = client.get(&machine("a")).body;
    // The Azure CLI leaves these out.
    read["properties"]["storageProfile"].as_object_mut().expect("an object").remove("imageReference");
    read["properties"].as_object_mut().expect("an object").remove("timeCreated");
    read["tags"] = json!({"new": "tag"});
    let shown = client.succeed(&machine("a"), read).await;
    assert_eq!(shown["tags"], json!({"new": "tag"}));
    assert_eq!(shown["properties"]["storageProfile"]["imageReference"]["offer"], "debian-12");
    let mut more = shown.clone();
    more["properties"]["storageProfile"]["dataDisks"] = json!([{"lun": 0, "createOption": "Empty", "diskSizeGB": 4}]);
    assert_eq!(client.put(&machine("a"), more).status, 501);
    let mut other = shown;
    other["properties"]["storageProfile"]["osDisk"]["name"] = json!("other");
    assert_eq!(client.put(&machine("a"), other).code(), "PropertyChangeNotAllowed");
}

#[tokio::test(start_paused = true)]
async fn tags_are_written_at_their_scope_and_changes_are_logged() {
    let client = Client::new(Options::default());
    client.lay_out(&[]).await;
    let path = |scope: &str| format!("{scope}/providers/Microsoft.Resources/tags/default");
    let nsg = path(&network("networkSecurityGroups/nsg"));
    let patch = |operation: &str, tags: Value| {
        let body = json!({"operation": operation, "properties": {"tags": tags}});
        client.ask("PATCH", &nsg, body).body["properties"]["tags"].clone()
    };
    assert_eq!(patch("Replace", json!({"a": "1", "b": "2"})), json!({"a": "1", "b": "2"}));
    assert_eq!(patch("Merge", json!({"A": "3"})), json!({"A": "3", "b": "2"}));
    assert_eq!(patch("Delete", json!({"a": "other", "b": "2"})), json!({"A": "3"}));
    assert_eq!(client.get(&network("networkSecurityGroups/nsg")).body["tags"], json!({"A": "3"}));
    let of_group = path("/resourceGroups/Rg");
    assert_eq!(client.put(&of_group, json!({"properties": {"tags": {"c": "d"}}})).status, 200);
    assert_eq!(client.get("/resourceGroups/Rg").body["tags"], json!({"c": "d"}));
    assert_eq!(client.delete(&of_group).status, 200);
    assert_eq!(client.get(&of_group).body["properties"]["tags"], json!({}));
    assert_eq!(client.get(&path(&network("networkSecurityGroups/no"))).code(), "ResourceNotFound");
    assert_eq!(client.get("/tagNames").body["value"][0]["tagName"], "A");

    let log = "/providers/Microsoft.Insights/eventtypes/management/values?$filter=";
    let events = client
        .get(&format!("{log}eventTimestamp%20ge%20'2027-01-01T00:00:00Z'%20and%20resourceGroupName%20eq%20'rg'"))
        .body;
    assert_eq!(events["value"][0]["operationName"]["value"], "Microsoft.Resources/subscriptions/resourceGroups/write");
    let none = client.get(&format!("{log}eventTimestamp%20ge%20'2028-01-01T00:00:00Z'")).body;
    assert_eq!(none["value"], json!([]));
}
