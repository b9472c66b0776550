//! Deployments of templates into a resource group: validated, predicted (what-if), carried out, and looked at.
//!
//! A deployment sends the same requests as any other client, each when what it depends on is there. What `validate`
//! refuses is what is wrong with the template itself; what the providers refuse is found out by deploying.
//!
//! The paths, status codes and headers: Azure SDK. `az vm create` and `az deployment group create`, `validate` and
//! `what-if` work with them: observed with Azure CLI 2.91.0.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    call::{Answer, Call, Refusal, Reply, retry_after},
    groups, listing,
    operation::{self, Purpose},
    resource::Kind,
    route,
    template::{self, NoValue, Planned, Template},
};
use crate::World;

/// How often a deployment looks at what it waits for (guess).
const LOOK: Duration = Duration::from_secs(1);

/// One deployment.
pub(super) struct Deployment {
    id: String,
    name: String,
    mode: String,
    template: Template,
    template_hash: String,
    steps: Vec<Step>,
    operation: String,
    correlation: String,
    timestamp: String,
    started: Duration,
    ended: Option<Duration>,
    outputs: Value,
    error: Option<Refusal>,
}

/// What became of a resource of the template.
struct Step {
    /// A GUID, by which the list of operations knows it.
    id: String,
    state: State,
    timestamp: String,
}

enum State {
    Waiting,
    /// The operation of the resource's provider.
    Running(String),
    Done,
    Failed(Refusal),
}

/// Requests to `.../providers/Microsoft.Resources/deployments`.
pub(super) fn answer(world: &mut World, call: &Call, group: &str, rest: &[&str]) -> Answer {
    groups::exists(world, group)?;
    let prefix = format!("{}/providers/microsoft.resources/deployments/", groups::key(group));
    let at = call.segments.len() - rest.len();
    let Some(name) = call.segments.get(at) else {
        let deployments = world.azure.deployments.range(prefix.clone()..);
        let bodies = deployments.take_while(|(key, _)| key.starts_with(&prefix)).map(|(_, found)| found.body(world));
        return Ok(listing::page(call, bodies, |body| body.to_string().into()));
    };
    let key = format!("{prefix}{}", rest[0]);
    let id = format!("{}/providers/Microsoft.Resources/deployments/{name}", text(&groups::body(world, group)?["id"]));
    match (call.method.as_str(), &rest[1..]) {
        ("PUT", []) => create(world, call, group, &id),
        ("POST", ["validate"]) => validate(world, call, group, &id),
        ("POST", ["whatif"]) => what_if(world, call, group, &key),
        ("HEAD", []) => Ok(Reply::empty(if world.azure.deployments.contains_key(&key) { 204 } else { 404 })),
        ("GET", []) => find(world, &key).map(|found| Reply::new(200, &found.body(world))),
        ("GET", ["operations"]) => find(world, &key).map(|found| {
            let operations = found.operations();
            listing::page(call, operations.iter(), |operation| operation.to_string().into())
        }),
        ("GET", ["operationstatuses", operation]) => operation::status(world, operation),
        ("DELETE", []) => delete(world, &key),
        _ => Err(Refusal::method(call)),
    }
}

fn find<'a>(world: &'a World, key: &str) -> Result<&'a Deployment, Refusal> {
    world.azure.deployments.get(key).ok_or_else(|| {
        let name = key.rsplit('/').next().unwrap_or_default();
        Refusal::new(404, "DeploymentNotFound", format!("Deployment '{name}' could not be found."))
    })
}

/// Reads the body of a deployment and checks its template.
fn read(world: &World, call: &Call, group: &str) -> Result<(Template, Value), Refusal> {
    let request = template::parse(&String::from_utf8_lossy(&call.body)).map_err(|error| {
        let text = format!("The request content was invalid and could not be deserialized: '{error}'.");
        Refusal::new(400, "InvalidRequestContent", text)
    })?;
    let properties = &request["properties"];
    match properties["mode"].as_str().map(str::to_lowercase).as_deref() {
        Some("incremental") => {}
        Some("complete") => return Err(Refusal::unsupported("deployments in complete mode")),
        _ => {
            let text = "The deployment mode must be one of 'Incremental', 'Complete'.";
            return Err(Refusal::new(400, "InvalidDeployment", text));
        }
    }
    let name = call.segments.get(7).map(String::as_str).unwrap_or_default();
    let template = Template::read(groups::body(world, group)?, name, properties)?;
    let imitated = |planned: &&Planned| {
        let mut parts = planned.kind.split('/');
        Kind::parse(parts.next().unwrap_or_default(), parts.next().unwrap_or_default()).is_some()
    };
    match template.resources.iter().find(|planned| !imitated(planned)) {
        Some(other) => Err(Refusal::unsupported(&format!("resources of the type {} in a template", other.kind))),
        None => Ok((template, properties.clone())),
    }
}

fn create(world: &mut World, call: &Call, group: &str, id: &str) -> Answer {
    let key = id.to_lowercase();
    groups::writable(world, group)?;
    let name = call.segments[7].clone();
    let fits = |character: char| character.is_alphanumeric() || "-_.()".contains(character);
    if name.chars().count() > 64 || !name.chars().all(fits) {
        let text = format!(
            "The name of the deployment '{name}' must be 64 letters, digits, or any of '-', '_', '.', '(', ')'."
        );
        return Err(Refusal::new(400, "InvalidDeploymentName", text));
    }
    if world.azure.deployments.get(&key).is_some_and(|known| known.ended.is_none()) {
        let text = format!(
            "Unable to edit or replace deployment '{name}': previous deployment is still active. Please see https://aka.ms/arm-deploy for usage details."
        );
        return Err(Refusal::new(409, "DeploymentActive", text));
    }
    let (template, properties) = read(world, call, group)?;
    let operation = operation::begin(world, &key, "Microsoft.Resources", Purpose::Write);
    let step = |_: &Planned| Step {
        id: world.azure.identifier("deployment operation"),
        state: State::Waiting,
        timestamp: world.timestamp(),
    };
    let steps = template.resources.iter().map(step).collect();
    let deployment = Deployment {
        id: id.to_owned(),
        name,
        mode: "Incremental".into(),
        template,
        template_hash: hash_of(&properties["template"]),
        steps,
        operation: operation.clone(),
        correlation: world.azure.identifier("correlation"),
        timestamp: world.timestamp(),
        started: world.now,
        ended: None,
        outputs: Value::Null,
        error: None,
    };
    let mut body = deployment.body(world);
    body["properties"]["provisioningState"] = json!("Accepted");
    let created = world.azure.deployments.insert(key.clone(), deployment).is_none();
    world.ledger.change(world.now, "arm", if created { "created" } else { "updated" }, id);
    world.after(LOOK, move |world| advance(world, &key));
    let url = format!("{}{id}/operationStatuses/{operation}?api-version={}", call.base(), call.api_version());
    let wait = retry_after(world, operation::poll_seconds("Microsoft.Network"));
    Ok(Reply::new(if created { 201 } else { 200 }, &body).header("azure-asyncoperation", url).headers([wait]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Azure's own hash is not known (guess).
fn hash_of(template: &Value) -> String {
    let digest = Sha256::digest(template.to_string());
    digest[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)).to_string()
}

fn delete(world: &mut World, key: &str) -> Answer {
    if world.azure.deployments.get(key).is_some_and(|known| known.ended.is_none()) {
        let text = "The deployment is active and can not be deleted. Please cancel it first.";
        return Err(Refusal::new(409, "DeploymentActive", text));
    }
    Ok(Reply::empty(if world.azure.deployments.remove(key).is_some() { 202 } else { 204 }))
}

/// Carries out what can be done now, until everything is done.
fn advance(world: &mut World, key: &str) {
    let Some(mut deployment) = world.azure.deployments.remove(key) else { return };
    if deployment.ended.is_none() {
        deployment.look(world);
        let begun = deployment.begin_what_is_ready(world);
        let running = deployment.steps.iter().any(|step| matches!(step.state, State::Running(_)));
        if !begun && !running {
            deployment.end(world);
        }
    }
    let goes_on = deployment.ended.is_none();
    let key = key.to_owned();
    world.azure.deployments.insert(key.clone(), deployment);
    if goes_on {
        world.after(LOOK, move |world| advance(world, &key));
    }
}

impl Deployment {
    fn set(&mut self, world: &World, at: usize, state: State) {
        self.steps[at].state = state;
        self.steps[at].timestamp = world.timestamp();
    }

    /// Looks at the operations that run.
    fn look(&mut self, world: &World) {
        for at in 0..self.steps.len() {
            let State::Running(operation) = &self.steps[at].state else { continue };
            match operation::outcome(world, operation) {
                None => {}
                Some(Ok(())) => self.set(world, at, State::Done),
                Some(Err(refusal)) => self.set(world, at, State::Failed(refusal)),
            }
        }
    }

    /// Whether anything was begun, or is to be tried again. After the first failure nothing more is begun (Azure
    /// documentation: what was begun goes on).
    fn begin_what_is_ready(&mut self, world: &mut World) -> bool {
        let mut begun = false;
        for at in 0..self.steps.len() {
            if self.steps.iter().any(|step| matches!(step.state, State::Failed(_))) {
                return false;
            }
            let planned = &self.template.resources[at];
            let done = |other: &usize| matches!(self.steps[*other].state, State::Done);
            if !matches!(self.steps[at].state, State::Waiting) || !planned.depends_on.iter().all(done) {
                continue;
            }
            let request = self.template.request(at, &|called| self.find(world, called));
            let state = match request {
                Err(NoValue::NotYet) => continue,
                Err(no_value) => State::Failed(without_value(no_value, &planned.id)),
                Ok(body) => begin(world, planned, &body),
            };
            begun = true;
            self.set(world, at, state);
        }
        begun
    }

    /// What `reference` finds: a resource of the template once it is there, or any other.
    fn find(&self, world: &World, called: &str) -> Result<Value, NoValue> {
        let key = match self.template.position(called) {
            Some(at) if !matches!(self.steps[at].state, State::Done) => return Err(NoValue::NotYet),
            Some(at) => self.template.resources[at].key.clone(),
            None => called.to_lowercase(),
        };
        existing(world, &key).ok_or_else(|| NoValue::Missing(called.into()))
    }

    fn end(&mut self, world: &mut World) {
        let mut details = Vec::new();
        for step in &self.steps {
            match &step.state {
                State::Failed(refusal) => details.push(refusal.error()),
                State::Waiting if self.steps.iter().all(|step| !matches!(step.state, State::Failed(_))) => {
                    details.push(
                        template::invalid("Circular dependency detected between references of resources").error(),
                    );
                }
                _ => {}
            }
        }
        let outputs = self.template.outputs(&|called| self.find(world, called));
        self.error = match (details.is_empty(), outputs) {
            (true, Ok(outputs)) => {
                self.outputs = outputs;
                None
            }
            (true, Err(no_value)) => Some(failure(vec![without_value(no_value, &self.id).error()])),
            (false, _) => Some(failure(details)),
        };
        self.ended = Some(world.now);
        self.timestamp = world.timestamp();
        operation::end(world, &self.operation, self.error.clone().map_or(Ok(()), Err));
        world.ledger.change(world.now, "world", if self.error.is_none() { "succeeded" } else { "failed" }, &*self.id);
    }

    fn state(&self) -> &'static str {
        match (self.ended, &self.error) {
            (None, _) => "Running",
            (Some(_), None) => "Succeeded",
            (Some(_), Some(_)) => "Failed",
        }
    }

    /// What a `GET` shows.
    fn body(&self, world: &World) -> Value {
        let mut properties = described(&self.template);
        properties["mode"] = json!(self.mode);
        properties["templateHash"] = json!(self.template_hash);
        properties["provisioningState"] = json!(self.state());
        properties["timestamp"] = json!(self.timestamp);
        properties["correlationId"] = json!(self.correlation);
        let took = self.ended.unwrap_or(world.now).saturating_sub(self.started);
        properties["duration"] = json!(format!("PT{:.3}S", took.as_secs_f64()));
        if self.state() == "Succeeded" {
            let ids = self.template.resources.iter().map(|planned| json!({"id": planned.id}));
            properties["outputResources"] = ids.collect();
            properties["outputs"] = self.outputs.clone();
        }
        if let Some(error) = &self.error {
            properties["error"] = error.error();
        }
        json!({"id": self.id, "name": self.name, "type": "Microsoft.Resources/deployments", "properties": properties})
    }

    /// One for each resource that was begun.
    fn operations(&self) -> Vec<Value> {
        let steps = self.steps.iter().zip(&self.template.resources);
        steps
            .filter_map(|(step, planned)| {
                let (state, code, message) = match &step.state {
                    State::Waiting => return None,
                    State::Running(_) => ("Running", "Accepted", Value::Null),
                    State::Done => ("Succeeded", "OK", Value::Null),
                    State::Failed(refusal) => ("Failed", "Conflict", json!({"error": refusal.error()})),
                };
                Some(json!({
                    "id": format!("{}/operations/{}", self.id, step.id), "operationId": step.id,
                    "properties": {
                        "provisioningOperation": "Create", "provisioningState": state, "statusCode": code,
                        "statusMessage": message, "timestamp": step.timestamp,
                        "targetResource": {"id": planned.id, "resourceType": planned.kind, "resourceName": planned.name},
                    },
                }))
            })
            .collect()
    }
}

/// The code and text of a failed deployment are Azure's.
fn failure(details: Vec<Value>) -> Refusal {
    let text = "At least one resource deployment operation failed. Please list deployment operations for details. Please see \
                https://aka.ms/arm-deployment-operations for usage details.";
    Refusal { details, ..Refusal::new(409, "DeploymentFailed", text) }
}

fn without_value(no_value: NoValue, id: &str) -> Refusal {
    match no_value {
        NoValue::Missing(missing) => Refusal::new(
            404,
            "ResourceNotFound",
            format!("The Resource '{missing}' was not found: '{id}' refers to it."),
        ),
        NoValue::Invalid(why) => {
            let text = format!("Unable to process template language expressions for resource '{id}': {why}");
            Refusal::new(400, "InvalidTemplate", text)
        }
        NoValue::NotYet => Refusal::new(400, "InvalidTemplate", format!("'{id}' refers to what is not there.")),
    }
}

/// Sends the request that makes a resource.
fn begin(world: &mut World, planned: &Planned, body: &Value) -> State {
    let call = Call::made(Method::PUT, &planned.id, &planned.api_version, body.to_string());
    match route::route(world, &call) {
        // Resource Manager asks again by itself (Azure documentation).
        Err(refusal) if refusal.status == 429 => State::Waiting,
        Err(refusal) => State::Failed(refusal),
        Ok(reply) => {
            let url = reply.headers.iter().find(|(name, _)| *name == "azure-asyncoperation").map(|(_, url)| url);
            let name = url.and_then(|url| url.rsplit('/').next()?.split('?').next());
            name.map_or(State::Done, |name| State::Running(name.into()))
        }
    }
}

/// What a `GET` of a resource or of a part of it shows.
fn existing(world: &World, key: &str) -> Option<Value> {
    let parts: Vec<&str> = key.split('/').collect();
    let whole = world.azure.store.rendered(&parts.get(..9)?.join("/"))?;
    let [field, name] = parts[9..] else { return Some(whole) };
    let mut fields = whole["properties"].as_object()?.iter();
    let (_, items) = fields.find(|(known, _)| known.eq_ignore_ascii_case(field))?;
    items.as_array()?.iter().find(|item| text(&item["name"]).eq_ignore_ascii_case(name)).cloned()
}

/// What a template holds: its parameters, its providers, what depends on what.
fn described(template: &Template) -> Value {
    let mut providers: Vec<Value> = Vec::new();
    for planned in &template.resources {
        let (namespace, kind) = planned.kind.split_once('/').unwrap_or((&planned.kind, ""));
        let kind = json!({"resourceType": kind, "locations": []});
        match providers.iter_mut().find(|provider| provider["namespace"] == namespace) {
            None => providers.push(json!({"namespace": namespace, "resourceTypes": [kind]})),
            Some(provider) => match provider["resourceTypes"].as_array_mut() {
                Some(kinds) if !kinds.contains(&kind) => kinds.push(kind),
                _ => {}
            },
        }
    }
    let brief =
        |planned: &Planned| json!({"id": planned.id, "resourceType": planned.kind, "resourceName": planned.name});
    let dependencies = template.resources.iter().filter(|planned| !planned.depends_on.is_empty());
    let dependencies: Vec<Value> = dependencies
        .map(|planned| {
            let mut whole = brief(planned);
            whole["dependsOn"] = planned.depends_on.iter().map(|at| brief(&template.resources[*at])).collect();
            whole
        })
        .collect();
    json!({"parameters": template.shown_parameters, "providers": providers, "dependencies": dependencies})
}

fn validate(world: &mut World, call: &Call, group: &str, id: &str) -> Answer {
    let (template, content) = read(world, call, group)?;
    let mut properties = described(&template);
    properties["mode"] = json!("Incremental");
    properties["templateHash"] = json!(hash_of(&content["template"]));
    properties["provisioningState"] = json!("Succeeded");
    properties["timestamp"] = json!(world.timestamp());
    properties["duration"] = json!("PT0S");
    properties["correlationId"] = json!(world.azure.identifier("correlation"));
    let ids = template.resources.iter().map(|planned| json!({"id": planned.id}));
    properties["validatedResources"] = ids.collect();
    let body = json!({"id": id, "name": call.segments[7], "type": "Microsoft.Resources/deployments", "properties": properties});
    Ok(Reply::new(200, &body))
}

/// The prediction is the result of an operation: 202 first (Azure SDK).
fn what_if(world: &mut World, call: &Call, group: &str, key: &str) -> Answer {
    let (template, _) = read(world, call, group)?;
    let mut changes: Vec<Value> = (0..template.resources.len()).map(|at| predicted(world, &template, at)).collect();
    let prefix = format!("{}/", groups::key(group));
    for (key, record) in world.azure.store.under(&prefix) {
        if template.position(key).is_none() {
            let body = world.azure.store.rendered(key);
            changes.push(json!({"resourceId": record.id, "changeType": "Ignore", "before": body, "after": body}));
        }
    }
    let correlation = world.azure.identifier("correlation");
    let result = json!({"status": "Succeeded", "properties": {"correlationId": correlation, "changes": changes}});
    let operation = operation::begin_answer(world, key, result.to_string());
    let ended = operation.clone();
    world.after(LOOK, move |world| operation::end(world, &ended, Ok(())));
    let url = format!(
        "{}/subscriptions/{}/operationresults/{operation}?api-version={}",
        call.base(),
        super::SUBSCRIPTION,
        call.api_version()
    );
    let wait = retry_after(world, operation::poll_seconds("Microsoft.Network"));
    Ok(Reply::empty(202).header("location", url).headers([wait]))
}

fn predicted(world: &World, template: &Template, at: usize) -> Value {
    let planned = &template.resources[at];
    let before = existing(world, &planned.key);
    let find = |called: &str| match template.position(called) {
        Some(at) => existing(world, &template.resources[at].key).ok_or(NoValue::NotYet),
        None => existing(world, &called.to_lowercase()).ok_or_else(|| NoValue::Missing(called.into())),
    };
    let request = template.request(at, &find).ok().map(super::resource::without_nulls);
    let delta = match (&before, &request) {
        (Some(before), Some(request)) => differences("", before, request),
        _ => Vec::new(),
    };
    let kind = match (&before, &request) {
        (None, _) => "Create",
        // What cannot be known before may or may not change (Azure documentation).
        (Some(_), None) => "Deploy",
        (Some(_), Some(_)) if delta.is_empty() => "NoChange",
        (Some(_), Some(_)) => "Modify",
    };
    let mut after = before.clone().filter(|_| request.is_none()).or(request).unwrap_or_else(|| json!({}));
    after["id"] = json!(planned.id);
    after["name"] = json!(planned.name.rsplit('/').next());
    after["type"] = json!(planned.kind);
    after["apiVersion"] = json!(planned.api_version);
    json!({"resourceId": planned.id, "changeType": kind, "before": before, "after": after, "delta": delta})
}

/// What a request would change: it may say less than there is, and texts differ in more than case.
fn differences(path: &str, before: &Value, after: &Value) -> Vec<Value> {
    // They are never shown, so they cannot be compared.
    const WRITE_ONLY: [&str; 2] = ["properties.osProfile.customData", "properties.osProfile.adminPassword"];
    match (before, after) {
        _ if WRITE_ONLY.contains(&path) => Vec::new(),
        (Value::Object(before), Value::Object(after)) => after
            .iter()
            .flat_map(|(name, after)| {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                differences(&path, before.get(name).unwrap_or(&Value::Null), after)
            })
            .collect(),
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            let same = old.iter().zip(new).all(|(old, new)| differences("", old, new).is_empty());
            if same { Vec::new() } else { vec![difference(path, before, after)] }
        }
        (Value::Null, Value::Object(fields)) if fields.is_empty() => Vec::new(),
        (Value::Null, Value::Array(items)) if items.is_empty() => Vec::new(),
        (Value::String(old), Value::String(new)) if old.eq_ignore_ascii_case(new) => Vec::new(),
        _ if before == after => Vec::new(),
        _ => vec![difference(path, before, after)],
    }
}

fn difference(path: &str, before: &Value, after: &Value) -> Value {
    let kind = if before.is_null() { "Create" } else { "Modify" };
    json!({"path": path, "propertyChangeType": kind, "before": before, "after": after})
}
