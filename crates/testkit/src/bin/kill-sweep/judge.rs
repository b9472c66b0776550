//! What must hold when a command has come to its end, whatever it went through.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{program::Program, text};

/// The cluster is there as it was asked for, everybody says so, and people can use it. What exists since `before` in the
/// ledger was neither made twice nor taken away.
pub(super) fn deployed(program: &Program, nodes: &[String], before: usize) -> Result<(), String> {
    let status = program.document(&["status"])?;
    let phase = status["phase"].as_str().unwrap_or_default();
    let machines: BTreeSet<String> = program.resources()?.iter().filter_map(machine).collect();
    let wanted: BTreeSet<String> = nodes.iter().cloned().collect();
    if phase != "k0rdent_deployed" || machines != wanted {
        return Err(format!(
            "after `deploy`, the status is {phase}, and the machines are {machines:?}, not {wanted:?}"
        ));
    }
    let checked = program.document(&["status", "--check"])?;
    if checked["differences"].as_array().is_none_or(|differences| !differences.is_empty()) {
        return Err(format!("after `deploy`, `status --check` says {}", checked["differences"]));
    }
    for way in [["exec", "--", "true"].as_slice(), &["kubeconfig"]] {
        program.says(way)?;
    }
    for node in nodes {
        program.says(&["ssh", node, "--", "true"])?;
    }
    ledger(&program.ledger()?)?;
    held(&program.ledger()?[before..], &wanted)
}

/// The name of a virtual machine.
fn machine(resource: &Value) -> Option<String> {
    let is_machine = resource["type"] == "Microsoft.Compute/virtualMachines";
    is_machine.then(|| resource["name"].as_str().map(str::to_owned)).flatten()
}

/// Nothing is left, in the world and in the directory.
pub(super) fn reset(program: &Program) -> Result<(), String> {
    let left = program.resources()?;
    if !left.is_empty() {
        return Err(format!("after `reset`, there is {left:?}"));
    }
    let entries = fs_err::read_dir(program.home()).map_err(text)?;
    let names: BTreeSet<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if !names.iter().all(|name| [".gitignore", "README", "old_deployments"].contains(&name.as_str())) {
        return Err(format!("after `reset`, the directory has {names:?}"));
    }
    let leftovers = program.document(&["leftovers"])?;
    if leftovers["leftovers"].as_array().is_none_or(|left| !left.is_empty()) {
        return Err(format!("after `reset`, `leftovers` says {leftovers}"));
    }
    ledger(&program.ledger()?)
}

/// Nothing was created while it existed, and never were there two clusters: of Azure's resources, or of etcd.
fn ledger(entries: &[Value]) -> Result<(), String> {
    let (mut alive, mut clusters) = (BTreeSet::new(), 0_u32);
    for entry in entries.iter().filter(|entry| entry["kind"] == "change") {
        let id = entry["object"].as_str().unwrap_or_default().to_lowercase();
        let verb = entry["verb"].as_str().unwrap_or_default();
        match verb {
            "created" if id.starts_with("/subscriptions/") && !alive.insert(id.clone()) => {
                return Err(format!("{id} was created twice"));
            }
            "deleted" => drop(alive.remove(&id)),
            _ => {}
        }
        if id.ends_with("k0s cluster") {
            clusters = if verb == "created" { clusters + 1 } else { clusters.saturating_sub(1) };
        }
        if clusters > 1 {
            return Err(format!("a second etcd cluster was begun at {} s", entry["at_seconds"]));
        }
        let groups = alive.iter().filter(|id| !id.contains("/providers/")).count();
        if groups > 1 {
            return Err(format!("{id} is the resource group of a second cluster"));
        }
    }
    Ok(())
}

/// No machine that is wanted was deleted: nothing in the world goes wrong, so there is no reason to.
fn held(entries: &[Value], wanted: &BTreeSet<String>) -> Result<(), String> {
    let changes = entries.iter().filter(|entry| entry["kind"] == "change" && entry["verb"] == "deleted");
    for id in changes.filter_map(|entry| entry["object"].as_str()) {
        let name = id.rsplit('/').next().unwrap_or_default();
        if id.to_lowercase().contains("/virtualmachines/") && wanted.contains(name) {
            return Err(format!("{id} was deleted by a deployment that wants it"));
        }
    }
    Ok(())
}
