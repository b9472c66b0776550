//! What Azure says when it says no: one error type for refused requests, failed operations and lost connections.

use std::time::Duration;

use serde_json::Value;

use super::{
    auth::{self, AuthError},
    policy::Denial,
};
use crate::http::HttpError;

/// A request or an operation that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {code}: {message}")]
pub struct ArmError {
    /// The HTTP status; 0 when no answer arrived, 200 when the request was accepted and the operation failed later.
    pub status: u16,
    /// Azure's code of the innermost error.
    pub code: String,
    /// Azure's message of the innermost error.
    pub message: Box<str>,
    /// What the request was about: the end of the resource's identifier.
    pub resource: Box<str>,
    /// Whether the same request may succeed when repeated.
    pub retry: Retry,
    /// What kind of error it is.
    pub class: ErrorClass,
    /// What to do about it, where the answer says more than its code.
    pub remedy: Option<Box<String>>,
}

/// Whether the same request may succeed when repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not before somebody changed something.
    Never,
    /// Soon; the client itself repeats the request until its deadline.
    Soon,
    /// Not before this long; the client itself repeats the request until its deadline.
    After(Duration),
    /// Once Azure lets go of it by itself, after about this long ([`super::Watch::delete`]).
    Later(Duration),
}

/// Where there is no capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In this zone; another zone may do.
    Zone,
    /// In the whole region for this size.
    Region,
    /// For this combination of size and other wishes, or for this size at all.
    Size,
}

/// What kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The credential is not accepted.
    Auth,
    /// The credential is accepted and lacks a permission, or a policy forbids it.
    Permission,
    /// There is no such thing.
    NotFound,
    /// Something else changes or occupies the resource.
    Conflict,
    /// Too many requests.
    Throttled,
    /// A quota of the subscription is used up; the numbers where Azure says them.
    Quota {
        /// The limit.
        limit: Option<u32>,
        /// What is in use.
        usage: Option<u32>,
        /// What would be needed in addition.
        required: Option<u32>,
    },
    /// Azure has no machine to give.
    Capacity {
        /// Where not.
        scope: Scope,
    },
    /// The request is wrong.
    Invalid,
    /// Another resource still uses this one.
    InUse,
    /// A management lock forbids it.
    Locked,
    /// The resource group is being deleted.
    Deleting,
    /// The operation was accepted and failed later.
    Failed,
    /// Azure has a problem of its own.
    Unavailable,
    /// No answer.
    Transport,
}

impl ArmError {
    /// The error in the answer to a request.
    pub fn from_response(status: u16, body: &Value, resource: &str) -> ArmError {
        let (code, message) = leaf(body).unwrap_or_else(|| (format!("Http{status}"), shortened(body)));
        ArmError::new(status, code, message, resource).denied_by(body)
    }

    /// The error of an operation that was accepted and failed: HTTP says 200, the body says Failed.
    pub fn from_operation(body: &Value, resource: &str) -> ArmError {
        let (code, message) = leaf(body).unwrap_or_else(|| {
            let status = body["status"].as_str().unwrap_or("Failed");
            (format!("Operation{status}"), "Azure gave no reason".to_owned())
        });
        ArmError::new(200, code, message, resource).denied_by(body)
    }

    /// The same in short and with names, if it is a policy that says no.
    fn denied_by(self, body: &Value) -> ArmError {
        if !self.code.eq_ignore_ascii_case("RequestDisallowedByPolicy") {
            return self;
        }
        match Denial::of(body, &self.message) {
            Some(denial) => {
                ArmError { message: denial.to_string().into(), remedy: Some(Box::new(denial.advice())), ..self }
            }
            None => self,
        }
    }

    /// No answer arrived.
    pub fn transport(error: &HttpError, resource: &str) -> ArmError {
        ArmError {
            status: 0,
            code: "Transport".to_owned(),
            message: error.to_string().into(),
            resource: short_name(resource),
            retry: if error.may_pass() { Retry::Soon } else { Retry::Never },
            class: ErrorClass::Transport,
            remedy: error.advice().map(Box::new),
        }
    }

    /// There is no token to send a request with.
    pub fn login(error: &AuthError, resource: &str) -> ArmError {
        let class = match error {
            AuthError::Unreachable { .. } => ErrorClass::Transport,
            _ => ErrorClass::Auth,
        };
        ArmError {
            status: 0,
            code: error.code().to_owned(),
            message: error.to_string().into(),
            resource: short_name(resource),
            // Repeating was already tried.
            retry: Retry::Never,
            class,
            remedy: Some(Box::new(error.advice())),
        }
    }

    /// An error from its parts, classified.
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>, resource: &str) -> ArmError {
        let (code, message): (String, String) = (code.into(), message.into());
        let (class, retry) = classify(status, &code, &message);
        ArmError { status, code, message: message.into(), resource: short_name(resource), retry, class, remedy: None }
    }

    /// The deadline came first; `last` is what was seen last.
    pub fn out_of_time(resource: &str, last: &str) -> ArmError {
        ArmError {
            status: 0,
            code: "DeadlineExceeded".to_owned(),
            message: format!("not done in the time allowed; last seen: {last}").into(),
            resource: short_name(resource),
            retry: Retry::Never,
            class: ErrorClass::Transport,
            remedy: None,
        }
    }

    /// Whether the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        self.class == ErrorClass::NotFound
    }

    /// Whether the world said no in a way that a person has to change: quota, capacity, permission, locks.
    pub fn is_refusal(&self) -> bool {
        use ErrorClass::{Auth, Capacity, Locked, Permission, Quota};
        matches!(self.class, Auth | Permission | Quota { .. } | Capacity { .. } | Locked)
    }

    /// What to do next, in a sentence or two.
    pub fn advice(&self) -> String {
        if let Some(remedy) = &self.remedy {
            return remedy.to_string();
        }
        match (self.code.as_str(), self.class) {
            ("MissingSubscriptionRegistration", _) => {
                "Register the resource provider that the message names (it takes a minute or two), then repeat."
            }
            ("ReadOnlyDisabledSubscription", _) => {
                "The subscription is disabled: enable it in the Azure portal (billing), or use another one."
            }
            ("SubscriptionNotFound", _) => {
                "Check azure.subscription_id and that the credential belongs to the subscription's tenant."
            }
            ("PropertyChangeNotAllowed", _) => {
                "This property cannot be changed on an existing machine: delete the machine and create it again."
            }
            ("RequestDisallowedByPolicy", _) => {
                "An Azure policy forbids this resource, and the message names it: ask its owner for an exemption."
            }
            (code, ErrorClass::Invalid) if code.contains("Spot") || code.contains("MaxPrice") => {
                "Spot is not possible like this: choose another size, or set the VM priority to Regular."
            }
            (code, ErrorClass::Auth) => auth::advice(code),
            (_, class) => class.advice(),
        }
        .to_owned()
    }
}

impl ErrorClass {
    fn advice(self) -> &'static str {
        match self {
            ErrorClass::Auth => auth::advice(""),
            ErrorClass::Permission => {
                "The credential lacks the action that the message names: have the role Contributor assigned on the \
                 subscription or the resource group; a new assignment takes up to five minutes."
            }
            ErrorClass::NotFound => "It does not exist: check name, region and subscription.",
            ErrorClass::Conflict => "Something else is changing this resource: wait for it, then resume.",
            ErrorClass::Throttled => "Azure asks for fewer requests: wait a minute, then resume.",
            ErrorClass::Quota { .. } => {
                "Request more quota (Azure portal: Subscriptions, Usage + quotas), or choose fewer or smaller machines, \
                 another size family or another region."
            }
            ErrorClass::Capacity { scope: Scope::Zone } => {
                "Azure has none of this size in this zone now: allow other zones."
            }
            ErrorClass::Capacity { scope: Scope::Region } => {
                "Azure has none of this size in this region now: choose another size or region, or resume in an hour."
            }
            ErrorClass::Capacity { scope: Scope::Size } => {
                "Azure cannot give this size with these wishes: choose another size, zone, region or VM priority."
            }
            ErrorClass::Invalid => "The request is not acceptable to Azure: change what the message names.",
            ErrorClass::InUse => "Another resource still uses it, or has just ceased to: resume in a few minutes.",
            ErrorClass::Locked => "Remove the management lock (Azure portal: Locks), then resume.",
            ErrorClass::Deleting => "The resource group is being deleted: wait until it is gone, then resume.",
            ErrorClass::Failed => {
                "The operation failed inside Azure: resume; if it fails again, delete the resource first."
            }
            ErrorClass::Unavailable => "Azure has a problem of its own: resume later; see https://status.azure.com.",
            ErrorClass::Transport => "Check the network connection, then resume.",
        }
    }
}

/// How long a resource may still count as used by one that has just gone (guess; Azure documentation: minutes).
const RELEASE: Duration = Duration::from_secs(120);
/// How long an interface is kept for a machine that could not be created (Azure's message; Karpenter source).
const RESERVATION: Duration = Duration::from_secs(180);

/// The table of codes (Azure documentation; substrings of quota messages as in Azure's own Go extensions).
fn classify(status: u16, code: &str, message: &str) -> (ErrorClass, Retry) {
    let lower = code.to_ascii_lowercase();
    let capacity = |scope| (ErrorClass::Capacity { scope }, Retry::Never);
    match lower.as_str() {
        "skunotavailable" => capacity(Scope::Size),
        "zonalallocationfailed" => capacity(Scope::Zone),
        "allocationfailed" => capacity(Scope::Region),
        "overconstrainedzonalallocationrequest" | "overconstrainedallocationrequest" => capacity(Scope::Size),
        "quotaexceeded" | "errcode_insufficientvcpuquota" | "publicipcountlimitreached" => quota(message),
        "operationnotallowed" if message.to_ascii_lowercase().contains("quota") => quota(message),
        "resourcegroupbeingdeleted" => (ErrorClass::Deleting, Retry::Never),
        "scopelocked" => (ErrorClass::Locked, Retry::Never),
        "authorizationfailed" | "linkedauthorizationfailed" | "requestdisallowedbypolicy" => {
            (ErrorClass::Permission, Retry::Never)
        }
        "invalidauthenticationtoken" | "expiredauthenticationtoken" | "invalidauthenticationtokentenant" => {
            (ErrorClass::Auth, Retry::Never)
        }
        "toomanyrequests" | "subscriptionrequeststhrottled" | "operationnotallowedthrottled" => {
            (ErrorClass::Throttled, Retry::Soon)
        }
        "nicreservedforanothervm" => (ErrorClass::InUse, Retry::Later(RESERVATION)),
        "propertychangenotallowed" => (ErrorClass::Invalid, Retry::Never),
        "osprovisioningtimedout" | "osprovisioningclienterror" | "vmstarttimedout" => {
            (ErrorClass::Failed, Retry::Never)
        }
        // These are 404 too, and must not be taken for "the resource is gone".
        "subscriptionnotfound" | "invalidresourcenamespace" | "invalidresourcetype" => {
            (ErrorClass::Invalid, Retry::Never)
        }
        "missingsubscriptionregistration" | "readonlydisabledsubscription" => (ErrorClass::Permission, Retry::Never),
        other if is_in_use(other) => (ErrorClass::InUse, Retry::Later(RELEASE)),
        other if is_busy(other) => (ErrorClass::Conflict, Retry::Soon),
        _ => classify_status(status),
    }
}

fn is_in_use(code: &str) -> bool {
    code.starts_with("inuse")
        || code.starts_with("nicinuse")
        || matches!(
            code,
            "publicipaddresscannotbedeleted"
                | "networksecuritygroupoldreferencesnotcleanedup"
                | "publicipaddressinuse"
                | "privateipaddressinuse"
                | "diskinuse"
        )
}

fn is_busy(code: &str) -> bool {
    code == "anotheroperationinprogress"
        || code.starts_with("retryableerror")
        || code == "referencedresourcenotprovisioned"
}

fn classify_status(status: u16) -> (ErrorClass, Retry) {
    match status {
        401 => (ErrorClass::Auth, Retry::Never),
        403 => (ErrorClass::Permission, Retry::Never),
        404 | 410 => (ErrorClass::NotFound, Retry::Never),
        408 => (ErrorClass::Unavailable, Retry::Soon),
        409 | 412 => (ErrorClass::Conflict, Retry::Never),
        429 => (ErrorClass::Throttled, Retry::Soon),
        500.. => (ErrorClass::Unavailable, Retry::Soon),
        0..=399 => (ErrorClass::Failed, Retry::Never),
        _ => (ErrorClass::Invalid, Retry::Never),
    }
}

fn quota(message: &str) -> (ErrorClass, Retry) {
    let limit = number_after(message, "Current Limit:").or_else(|| number_after(message, "Limit:"));
    let usage = number_after(message, "Current Usage:");
    let required = number_after(message, "Additional Required:");
    (ErrorClass::Quota { limit, usage, required }, Retry::Never)
}

fn number_after(text: &str, label: &str) -> Option<u32> {
    let rest = text.split_once(label)?.1.trim_start();
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// The innermost error of an answer: `error` may nest `details`, and a message may itself be JSON with an error inside.
fn leaf(value: &Value) -> Option<(String, String)> {
    leaf_within(value, 8)
}

fn leaf_within(value: &Value, depth: u8) -> Option<(String, String)> {
    if depth == 0 {
        return None;
    }
    let error = value.get("error").unwrap_or(value);
    let details = error["details"].as_array().into_iter().flatten();
    if let Some(inner) = details.filter_map(|detail| leaf_within(detail, depth - 1)).next() {
        return Some(inner);
    }
    let code = error["code"].as_str().filter(|code| !code.is_empty())?;
    let message = error["message"].as_str().unwrap_or_default();
    if let Some(inner) =
        serde_json::from_str::<Value>(message).ok().and_then(|message| leaf_within(&message, depth - 1))
    {
        return Some(inner);
    }
    Some((code.to_owned(), message.trim().to_owned()))
}

fn shortened(body: &Value) -> String {
    match body {
        Value::Null => "no explanation".to_owned(),
        Value::String(text) => text.chars().take(200).collect(),
        other => other.to_string().chars().take(200).collect(),
    }
}

/// The end of an identifier that a person recognises: `virtualMachines/k0s-worker-1`.
pub(crate) fn short_name(resource: &str) -> Box<str> {
    let path = resource.split('?').next().unwrap_or_default();
    let mut parts: Vec<&str> = path.rsplit('/').filter(|part| !part.is_empty()).take(2).collect();
    parts.reverse();
    parts.join("/").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const QUOTA: &str = "Operation could not be completed as it results in exceeding approved Total Regional Cores quota. \
         Additional details - Deployment Model: Resource Manager, Location: westus2, Current Limit: 10, Current Usage: 8, \
         Additional Required: 4, (Minimum) New Limit Required: 12.";

    #[test]
    fn codes_are_classified() {
        use ErrorClass as Class;
        let quota = Class::Quota { limit: Some(10), usage: Some(8), required: Some(4) };
        let unknown_quota = Class::Quota { limit: None, usage: None, required: None };
        let table: &[(u16, &str, &str, Class, Retry)] = &[
            (409, "SkuNotAvailable", "", Class::Capacity { scope: Scope::Size }, Retry::Never),
            (200, "ZonalAllocationFailed", "", Class::Capacity { scope: Scope::Zone }, Retry::Never),
            (200, "AllocationFailed", "", Class::Capacity { scope: Scope::Region }, Retry::Never),
            (200, "OverconstrainedZonalAllocationRequest", "", Class::Capacity { scope: Scope::Size }, Retry::Never),
            (409, "OperationNotAllowed", QUOTA, quota, Retry::Never),
            (409, "QuotaExceeded", "", unknown_quota, Retry::Never),
            (409, "OperationNotAllowed", "not while deallocating", Class::Conflict, Retry::Never),
            (200, "OSProvisioningTimedOut", "", Class::Failed, Retry::Never),
            (400, "InUseSubnetCannotBeDeleted", "", Class::InUse, Retry::Later(RELEASE)),
            (400, "NicInUse", "", Class::InUse, Retry::Later(RELEASE)),
            (400, "NicReservedForAnotherVm", "", Class::InUse, Retry::Later(RESERVATION)),
            (409, "AnotherOperationInProgress", "", Class::Conflict, Retry::Soon),
            (429, "RetryableErrorDueToAnotherOperation", "", Class::Conflict, Retry::Soon),
            (409, "ResourceGroupBeingDeleted", "", Class::Deleting, Retry::Never),
            (404, "SubscriptionNotFound", "", Class::Invalid, Retry::Never),
            (404, "ResourceNotFound", "", Class::NotFound, Retry::Never),
            (409, "Conflict", "", Class::Conflict, Retry::Never),
            (403, "AuthorizationFailed", "", Class::Permission, Retry::Never),
            (401, "ExpiredAuthenticationToken", "", Class::Auth, Retry::Never),
            (409, "ScopeLocked", "", Class::Locked, Retry::Never),
            (409, "MissingSubscriptionRegistration", "", Class::Permission, Retry::Never),
            (409, "PropertyChangeNotAllowed", "", Class::Invalid, Retry::Never),
            (429, "TooManyRequests", "", Class::Throttled, Retry::Soon),
            (503, "ServerBusy", "", Class::Unavailable, Retry::Soon),
            (400, "InvalidParameter", "", Class::Invalid, Retry::Never),
            (200, "SomethingNew", "", Class::Failed, Retry::Never),
        ];
        for (status, code, message, class, retry) in table {
            let error = ArmError::new(*status, *code, *message, "/x/virtualMachines/a");
            assert_eq!((error.class, error.retry), (*class, *retry), "{code}");
            assert!(!error.advice().is_empty());
        }
    }

    #[test]
    fn the_innermost_error_is_found() {
        let inner = json!({"status": "Failed", "error": {"code": "ResourceDeploymentFailure", "message": "outer",
            "details": [{"code": "ZonalAllocationFailed", "message": "Allocation failed."}]}});
        let body = json!({"error": {"code": "DeploymentFailed", "message": "At least one operation failed.",
            "details": [{"code": "Conflict", "message": inner.to_string()}]}});
        let error = ArmError::from_response(409, &body, "/a/b/virtualMachines/vm-1?api-version=1");
        assert_eq!(error.to_string(), "virtualMachines/vm-1: ZonalAllocationFailed: Allocation failed.");
        let error = ArmError::from_operation(&json!({"status": "Canceled"}), "/a/b/c");
        assert_eq!((error.code.as_str(), error.status), ("OperationCanceled", 200));
        let error = ArmError::from_response(502, &Value::String("<html>bad gateway".into()), "/a");
        assert_eq!((error.code.as_str(), error.class), ("Http502", ErrorClass::Unavailable));
    }

    #[test]
    fn the_error_stays_small_enough_to_return() {
        assert!(size_of::<ArmError>() < 128, "{}", size_of::<ArmError>());
    }
}
