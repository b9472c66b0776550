//! Virtual machines in operation: power, eviction, the instance view, and their end.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{
    call::{Answer, Call, Refusal, Reply},
    compute::set_power_state,
    groups, locks,
    operation::{self, Purpose},
    resource::{self, Target},
    store::Record,
};
use crate::{FaultKind, Latency, World, machine};

/// From the request until a Spot machine is evicted (Azure documentation: within 30 minutes).
const EVICTION: Duration = Duration::from_secs(60);
/// How long a restarting machine is off (guess).
const RESTART_OFF: Duration = Duration::from_secs(5);

/// What a machine's `instanceView` says.
pub(super) fn instance_view(record: &Record) -> Value {
    let Some(facts) = &record.hidden.machine else { return json!({}) };
    let (state, time) = (record.state().to_lowercase(), &record.body["properties"]["timeCreated"]);
    let mut statuses = vec![json!({
        "code": format!("ProvisioningState/{state}"), "level": if state == "failed" { "Error" } else { "Info" },
        "displayStatus": format!("Provisioning {state}"), "time": time,
    })];
    if facts.placed {
        statuses.push(json!({
            "code": format!("PowerState/{}", facts.power), "level": "Info", "displayStatus": format!("VM {}", facts.power),
        }));
    }
    let mut view = json!({"hyperVGeneration": "V2", "statuses": statuses});
    if facts.power == "running" {
        let ready = state == "succeeded" || state == "updating";
        let (status, message) = if ready {
            ("Ready", "Guest Agent is running")
        } else {
            ("Not Ready", "VM status blob is found but not yet populated.")
        };
        let code = format!("ProvisioningState/{}", if ready { "succeeded" } else { "Unavailable" });
        view["vmAgent"] = json!({
            "vmAgentVersion": if ready { "2.9.1.1" } else { "Unknown" },
            "statuses": [{"code": code, "level": "Info", "displayStatus": status, "message": message, "time": time}],
        });
        view["computerName"] = record.body["properties"]["osProfile"]["computerName"].clone();
    }
    view
}

/// `POST .../{action}` and `GET .../instanceView` (observed with Azure CLI 2.91.0).
pub(super) fn act(world: &mut World, call: &Call, target: &Target, action: &str) -> Answer {
    let record = world.azure.store.get(&target.key).ok_or_else(|| target.missing())?;
    if (&call.method, action) == (&Method::GET, "instanceview") {
        return Ok(Reply::new(200, &instance_view(record)));
    }
    if call.method != Method::POST {
        return Err(Refusal::method(call));
    }
    groups::writable(world, &target.group)?;
    locks::check(world, &target.key, locks::Intent::Write)?;
    let facts = record.hidden.machine.clone().ok_or_else(|| target.missing())?;
    if record.hidden.deletion.is_some() || !facts.placed {
        let text = format!("Operation '{action}' is not allowed on VM '{}' in its current state.", target.name);
        return Err(Refusal::new(409, "OperationNotAllowed", text));
    }
    let (during, after, latency) = match action {
        "start" => ("starting", "running", Latency::Start),
        "restart" => ("starting", "running", Latency::Start),
        "poweroff" => ("stopping", "stopped", Latency::Deallocate),
        "deallocate" => ("deallocating", "deallocated", Latency::Deallocate),
        "simulateeviction" => return evict(world, target, facts.spot),
        _ => return Err(Refusal::unsupported(&format!("the action '{action}' on a virtual machine"))),
    };
    let location = record.location().to_owned();
    let operation = operation::begin(world, &target.key, "Microsoft.Compute", Purpose::Action);
    let headers = operation::headers(world, call, "Microsoft.Compute", &location, &operation, true);
    let duration = world.latency(latency, &target.name);
    if world.faults.strikes(FaultKind::OperationFailure, &target.name) {
        // The machine stays as it was, and is called failed (Azure documentation: `AllocationFailed` when starting).
        let key = target.key.clone();
        world.after(duration, move |world| {
            resource::set_state(world, &key, "Failed");
            operation::end(world, &operation, Err(resource::internal_error()));
        });
    } else if facts.power == after && action != "restart" {
        // It is there already.
        world.after(Duration::from_secs(1), move |world| operation::end(world, &operation, Ok(())));
    } else {
        switch(world, target, action, (facts.power, during, after), duration, operation);
    }
    Ok(Reply::empty(202).headers(headers))
}

/// Goes through the states `before`, `during` and `after`.
fn switch(
    world: &mut World,
    target: &Target,
    action: &str,
    (before, during, after): (&'static str, &'static str, &'static str),
    duration: Duration,
    operation: String,
) {
    set_power_state(world, &target.key, before, during);
    world.ledger.change(world.now, "arm", during, &*target.id);
    if action != "start" {
        machine::set_power(world, &target.id, false);
    }
    if after == "running" {
        let (key, id) = (target.key.clone(), target.id.clone());
        let off = if action == "restart" { RESTART_OFF } else { Duration::ZERO };
        world.after(off, move |world| {
            let still = world.azure.store.get(&key).and_then(|record| record.hidden.machine.as_ref());
            if still.is_some_and(|facts| facts.power == "starting") {
                machine::set_power(world, &id, true);
            }
        });
    }
    let (key, id) = (target.key.clone(), target.id.clone());
    world.after(duration.max(RESTART_OFF * 2), move |world| {
        let moved = set_power_state(world, &key, during, after);
        if moved {
            world.ledger.change(world.now, "world", after, id);
            // What has failed before is forgotten with the next operation that succeeds (guess).
            resource::set_state(world, &key, "Succeeded");
        }
        operation::end(world, &operation, if moved { Ok(()) } else { Err(operation::preempted()) });
    });
}

fn evict(world: &mut World, target: &Target, spot: bool) -> Answer {
    if !spot {
        let text = "The operation 'simulateEviction' is allowed on Azure Spot Virtual Machines only.";
        return Err(Refusal::new(409, "OperationNotAllowed", text));
    }
    let (key, id) = (target.key.clone(), target.id.clone());
    world.after(EVICTION, move |world| {
        let Some(record) = world.azure.store.get(&key) else { return };
        let deletes = record.body["properties"]["evictionPolicy"] == "Delete";
        let power = record.hidden.machine.as_ref().map_or("running", |facts| facts.power);
        world.ledger.change(world.now, "world", "evicted", &*id);
        if deletes {
            return resource::remove(world, "world", &key);
        }
        machine::set_power(world, &id, false);
        set_power_state(world, &key, power, "deallocated");
        world.ledger.change(world.now, "world", "deallocated", id);
    });
    Ok(Reply::empty(204))
}

/// `DELETE`: the machine stops at once and is gone at the end.
pub(super) fn delete(world: &mut World, call: &Call, target: &Target) -> Answer {
    let Some(record) = world.azure.store.get(&target.key) else { return Ok(Reply::empty(204)) };
    locks::check(world, &target.key, locks::Intent::Delete)?;
    let facts = record.hidden.machine.clone();
    let forced = call.query("forcedeletion").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    // A machine that is not shut down first goes in half the time (guess).
    let duration = world.latency(Latency::VirtualMachineDelete, &target.name).mul_f64(if forced { 0.5 } else { 1.0 });
    let doomed = record.hidden.deletion.is_none() && !world.faults.holds(FaultKind::OperationFailure, &target.name);
    if let Some(facts) = facts.filter(|facts| doomed && facts.placed) {
        machine::set_power(world, &target.id, false);
        set_power_state(world, &target.key, facts.power, "stopping");
    }
    resource::begin_delete(world, call, target, duration)
}
