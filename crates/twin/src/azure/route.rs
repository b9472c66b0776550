//! Which path belongs to whom.

use std::borrow::Cow;

use http::Method;

use super::{
    SUBSCRIPTION, activity,
    call::{Answer, Call, Refusal},
    catalogue, deployment, disk, gallery, groups, listing, locks, network, operation, policy, power, quota,
    resource::{self, Kind, Target},
    subscription, tags,
};
use crate::World;

/// Answers an admitted request.
pub(super) fn route(world: &mut World, call: &Call) -> Answer {
    let lower: Vec<&str> = call.lower.iter().map(String::as_str).collect();
    match lower.as_slice() {
        ["tenants"] => subscription::tenants(),
        ["subscriptions"] => subscription::list(),
        ["subscriptions", id, ..] if *id != SUBSCRIPTION => {
            let text = format!("The subscription '{id}' could not be found.");
            Err(Refusal::new(404, "SubscriptionNotFound", text))
        }
        ["subscriptions", _, .., "providers", "microsoft.authorization", "locks"] => locks::list(world, call),
        ["subscriptions", _, .., "providers", "microsoft.authorization", "locks", _] => locks::one(world, call),
        ["subscriptions", _, .., "providers", "microsoft.authorization", "policyassignments"] => {
            policy::list(world, call)
        }
        ["subscriptions", _, .., "providers", "microsoft.authorization", "policyassignments", _] => {
            policy::one(world, call)
        }
        ["subscriptions", _, .., "providers", "microsoft.resources", "tags", "default"] => tags::at_scope(world, call),
        ["subscriptions", _, "resourcegroups", _, rest @ ..] => in_group(world, call, rest),
        ["subscriptions", _, rest @ ..] => in_subscription(world, call, rest),
        _ => Err(nothing_here(call)),
    }
}

fn nothing_here(call: &Call) -> Refusal {
    Refusal::new(404, "InvalidResourceType", format!("The resource type could not be found: '{}'.", call.path))
}

fn in_subscription(world: &mut World, call: &Call, rest: &[&str]) -> Answer {
    if let ["providers", _, "register"] = rest {
        return subscription::register(world, call);
    }
    if call.method != Method::GET {
        return Err(Refusal::method(call));
    }
    match rest {
        [] => subscription::get(),
        ["locations"] => subscription::locations(),
        ["resources"] => listing::resources(world, call, None),
        ["resourcegroups"] => groups::list(world, call),
        ["operationresults", name] => operation::group_result(world, call, name),
        ["providers"] => subscription::providers(world),
        ["providers", _] => subscription::provider(world, call),
        ["tagnames"] => tags::names(world),
        ["providers", "microsoft.insights", "eventtypes", "management", "values"] => activity::list(world, call),
        ["providers", "microsoft.compute", "skus"] => catalogue::skus(call),
        ["providers", "microsoft.compute", "images"] => Ok(listing::page(call, std::iter::empty::<&str>(), Cow::from)),
        ["providers", provider, "locations", location, rest @ ..] => match rest {
            ["operations", name] => operation::status(world, name),
            ["operationresults", name] => operation::result(world, call, name),
            ["usages"] => quota::usages(world, provider, location),
            ["vmsizes"] => catalogue::machine_sizes(),
            ["publishers"]
            | ["publishers", _, "artifacttypes", "vmimage", "offers"]
            | ["publishers", _, "artifacttypes", "vmimage", "offers", _, "skus"] => {
                catalogue::image_names(call, location)
            }
            ["publishers", _, "artifacttypes", "vmimage", "offers", _, "skus", _, "versions"] => {
                catalogue::image_versions(call, location)
            }
            ["publishers", _, "artifacttypes", "vmimage", "offers", _, "skus", _, "versions", _] => {
                catalogue::image_version(call, location)
            }
            _ => Err(nothing_here(call)),
        },
        ["providers", provider, kind] => match Kind::parse(provider, kind) {
            Some(kind) => listing::typed(world, call, kind, None),
            None => Err(nothing_here(call)),
        },
        _ => Err(nothing_here(call)),
    }
}

fn in_group(world: &mut World, call: &Call, rest: &[&str]) -> Answer {
    let group = call.segments[3].as_str();
    let (provider, kind, name, rest) = match rest {
        [] => return groups::one(world, call, group),
        ["resources"] => return listing::resources(world, call, Some(group)),
        // The list of operations is asked for without the provider (observed with Azure CLI 2.91.0).
        ["deployments", rest @ ..] | ["providers", "microsoft.resources", "deployments", rest @ ..] => {
            return deployment::answer(world, call, group, rest);
        }
        ["providers", "microsoft.compute", "images"] if call.method == Method::GET => {
            groups::exists(world, group)?;
            return Ok(listing::page(call, std::iter::empty::<&str>(), Cow::from));
        }
        ["providers", "microsoft.compute", "galleries", ..] => return gallery::answer(world, call, group),
        ["providers", provider, kind] => (provider, kind, None, &[][..]),
        ["providers", provider, kind, _, rest @ ..] => (provider, kind, Some(call.segments[7].as_str()), rest),
        _ => return Err(nothing_here(call)),
    };
    subscription::check_registered(world, provider, &call.method)?;
    let kind = Kind::parse(provider, kind).ok_or_else(|| nothing_here(call))?;
    groups::exists(world, group)?;
    let Some(name) = name else { return listing::typed(world, call, kind, Some(group)) };
    let target = Target::new(world, kind, group, name);
    match (kind, rest) {
        (_, []) => one(world, call, &target),
        (Kind::VirtualMachine, ["extensions"]) if call.method == Method::GET => {
            world.azure.store.get(&target.key).ok_or_else(|| target.missing())?;
            Ok(listing::page(call, std::iter::empty::<&str>(), Cow::from))
        }
        (Kind::VirtualMachine, [action]) => power::act(world, call, &target, action),
        (Kind::SecurityGroup, ["securityrules" | "defaultsecurityrules", ..])
        | (Kind::VirtualNetwork, ["subnets", ..]) => network::child(world, call, &target),
        _ => Err(nothing_here(call)),
    }
}

fn one(world: &mut World, call: &Call, target: &Target) -> Answer {
    match (call.method.as_str(), target.kind) {
        ("GET" | "HEAD", _) => resource::get(world, call, target),
        ("PUT", _) => resource::put(world, call, target, resource::without_nulls(call.json()?)),
        ("PATCH", _) => resource::patch(world, call, target),
        ("DELETE", Kind::VirtualMachine) => power::delete(world, call, target),
        ("DELETE", Kind::Disk) => disk::delete(world, call, target),
        ("DELETE", _) => resource::delete(world, call, target),
        _ => Err(Refusal::method(call)),
    }
}

/// The virtual machine that a request is about, where one can be named.
pub(super) fn node(world: &World, call: &Call) -> Option<String> {
    let lower: Vec<&str> = call.lower.iter().map(String::as_str).collect();
    match lower.as_slice() {
        ["subscriptions", _, "resourcegroups", _, "providers", _, kind, _, ..] => node_of(kind, call.segments.get(7)?),
        ["subscriptions", _, "providers", _, "locations", _, "operations" | "operationresults", name] => {
            let subject = operation::subject(world, name)?;
            let mut parts = subject.rsplit('/');
            let (name, kind) = (parts.next()?, parts.next()?);
            node_of(kind, name)
        }
        _ => None,
    }
}

/// Interfaces and addresses are named after their machine by convention: `k0s-worker-1-nic`.
fn node_of(kind: &str, name: &str) -> Option<String> {
    let before = |suffix: &str| name.to_lowercase().rfind(suffix).and_then(|at| name.get(..at)).map(String::from);
    match kind {
        "virtualmachines" => Some(name.into()),
        "networkinterfaces" => before("-nic"),
        "publicipaddresses" => before("-pip").or_else(|| before("-ip")),
        _ => None,
    }
}
