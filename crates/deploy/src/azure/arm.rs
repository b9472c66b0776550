//! The client of the Azure Resource Manager: sends requests within Azure's limits and the caller's deadline, repeats
//! what may be repeated, and turns everything else into an [`ArmError`].

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use engine::Intent;
use http::{HeaderMap, Method, Request, Uri};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    auth::{AuthError, Credentials, TokenSource},
    budget::{Bucket, Budget, Priority, charges},
    error::{ArmError, ErrorClass, Retry},
};
use crate::{
    http::HttpClient,
    seam::{World, pause},
};

/// How long one attempt may take. The longest answer, the list of machine sizes, takes seconds (guess).
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// The pause after the first failed attempt; it doubles up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// How long a write may fail because what it stands on is not yet known everywhere (Azure documentation: replication).
const REPLICATION_TIME: Duration = Duration::from_secs(30);

/// Requests under way at the same time; each needs a connection (guess at what is polite).
const REQUESTS_IN_FLIGHT: usize = 64;

/// More pages than any list of ours has: a server that sends us in circles is an error.
const PAGES_LIMIT: usize = 1000;

/// Where Azure is.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// The Resource Manager.
    pub arm: Uri,
    /// The login service.
    pub authority: Uri,
}

impl Default for Endpoints {
    /// The public cloud (Azure documentation).
    fn default() -> Self {
        Endpoints {
            arm: Uri::from_static("https://management.azure.com"),
            authority: Uri::from_static("https://login.microsoftonline.com"),
        }
    }
}

/// How a request is to be treated: its place in the queue, and when to give up.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The place in the queue.
    pub priority: Priority,
    /// When to give up.
    pub deadline: Instant,
}

impl Call {
    /// A request that is given up after this long, and goes first.
    pub fn within(duration: Duration) -> Call {
        Call { priority: Priority::FOUNDATION, deadline: Instant::now() + duration }
    }

    /// The same with another place in the queue.
    pub fn with_priority(self, priority: Priority) -> Call {
        Call { priority, ..self }
    }
}

/// A successful answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The HTTP status: 2xx, or 404 for a DELETE of what is not there.
    pub status: u16,
    /// The body; null if there is none.
    pub body: Value,
    /// `Azure-AsyncOperation`: where the operation's status and error are.
    pub operation: Option<String>,
    /// `Location`: where the operation's result will be.
    pub location: Option<String>,
    /// How long to wait before asking again.
    pub retry_after: Option<Duration>,
}

/// Where a long-running operation is.
#[derive(Debug, Clone)]
pub enum Progress {
    /// Not finished, with Azure's word for it.
    Running(String),
    /// Succeeded.
    Done,
}

/// How many requests were sent.
#[derive(Debug, Default)]
pub struct Usage {
    reads: AtomicU64,
    writes: AtomicU64,
    deletes: AtomicU64,
    throttled: AtomicU64,
    repeated: AtomicU64,
}

/// The numbers of a [`Usage`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct UsageCounts {
    /// Requests that look.
    pub reads: u64,
    /// Requests that create, change or start something.
    pub writes: u64,
    /// Requests that delete.
    pub deletes: u64,
    /// Answers 429: we asked too much.
    pub throttled: u64,
    /// Requests sent again.
    pub repeated: u64,
}

impl Usage {
    /// The numbers now.
    pub fn counts(&self) -> UsageCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UsageCounts {
            reads: get(&self.reads),
            writes: get(&self.writes),
            deletes: get(&self.deletes),
            throttled: get(&self.throttled),
            repeated: get(&self.repeated),
        }
    }

    fn count(&self, method: &Method) {
        let counter = match *method {
            Method::GET | Method::HEAD => &self.reads,
            Method::DELETE => &self.deletes,
            _ => &self.writes,
        };
        add_one(counter);
    }
}

fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The client. One for a run: it owns the allowance of the subscription.
pub struct ArmClient {
    world: World,
    http: HttpClient,
    arm: Uri,
    tokens: TokenSource,
    subscription: OnceLock<String>,
    budget: Budget,
    in_flight: Semaphore,
    usage: Arc<Usage>,
}

impl ArmClient {
    /// A client for one subscription, which may be chosen later.
    pub fn new(
        world: &World,
        http: HttpClient,
        endpoints: Endpoints,
        credentials: Credentials,
        subscription: Option<String>,
    ) -> ArmClient {
        let Endpoints { arm, authority } = endpoints;
        let resource = arm.to_string().trim_end_matches('/').to_owned();
        ArmClient {
            tokens: TokenSource::new(world.clone(), http.clone(), authority, resource, credentials),
            world: world.clone(),
            http,
            arm,
            subscription: subscription.map(OnceLock::from).unwrap_or_default(),
            budget: Budget::default(),
            in_flight: Semaphore::new(REQUESTS_IN_FLIGHT),
            usage: Arc::default(),
        }
    }

    /// The subscription, once it is known.
    pub fn subscription(&self) -> Option<&str> {
        self.subscription.get().map(String::as_str)
    }

    /// Settles on a subscription; the first choice stands.
    pub fn choose_subscription(&self, subscription: &str) -> &str {
        self.subscription.get_or_init(|| subscription.to_owned())
    }

    /// Gets a token, to see whether the credential works.
    pub async fn login(&self) -> Result<(), AuthError> {
        self.tokens.token().await.map(drop)
    }

    /// Who we are, after a login, for people; nothing if the token does not say.
    pub async fn account(&self) -> Option<String> {
        self.tokens.account().await
    }

    /// The subscription that is selected in the Azure CLI, after a login through it.
    pub async fn cli_subscription(&self) -> Option<String> {
        self.tokens.cli_subscription().await
    }

    /// The counters, to keep and to read at any time.
    pub fn usage(&self) -> Arc<Usage> {
        self.usage.clone()
    }

    /// How many requests wait for Azure's limits.
    pub fn waiting(&self) -> usize {
        self.budget.waiting()
    }

    /// Reads one thing. Paths start with `/subscriptions`; the api-version is added.
    pub async fn get(&self, path: &str, call: Call) -> Result<Answer, ArmError> {
        self.send(Method::GET, path, None, call).await
    }

    /// Reads one thing that need not exist.
    pub async fn find(&self, path: &str, call: Call) -> Result<Option<Value>, ArmError> {
        match self.get(path, call).await {
            Ok(answer) => Ok(Some(answer.body)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates or updates.
    pub async fn put(&self, _proof: &Intent, path: &str, body: &Value, call: Call) -> Result<Answer, ArmError> {
        self.send(Method::PUT, path, Some(body), call).await
    }

    /// Changes tags and the like.
    pub async fn patch(&self, _proof: &Intent, path: &str, body: &Value, call: Call) -> Result<Answer, ArmError> {
        self.send(Method::PATCH, path, Some(body), call).await
    }

    /// Acts on a thing. A null body is none.
    pub async fn post(&self, _proof: &Intent, path: &str, body: &Value, call: Call) -> Result<Answer, ArmError> {
        self.send(Method::POST, path, Some(body), call).await
    }

    /// Deletes. What is not there counts as deleted.
    pub async fn delete(&self, _proof: &Intent, path: &str, call: Call) -> Result<Answer, ArmError> {
        match self.send(Method::DELETE, path, None, call).await {
            Err(error) if error.is_not_found() => Ok(Answer { status: 404, ..Answer::default() }),
            answer => answer,
        }
    }

    /// All members of a collection, page after page.
    pub async fn list(&self, path: &str, call: Call) -> Result<Vec<Value>, ArmError> {
        Ok(self.list_pages(path, call).await?.0)
    }

    /// All members of a collection, and how many requests that took.
    pub(crate) async fn list_pages(&self, path: &str, call: Call) -> Result<(Vec<Value>, usize), ArmError> {
        let mut members = Vec::new();
        let mut page = path.to_owned();
        for pages in 1..=PAGES_LIMIT {
            let mut body = self.get(&page, call).await?.body;
            // Lists of images are bare arrays (measured with the Azure CLI).
            let values = if body.is_array() { Some(body.take()) } else { body.get_mut("value").map(Value::take) };
            let Some(Value::Array(values)) = values else {
                return Err(ArmError::new(400, "UnexpectedAnswer", "a list was expected", path));
            };
            members.extend(values);
            match body.get("nextLink").and_then(Value::as_str).filter(|link| !link.is_empty()) {
                Some(next) => page = next.to_owned(),
                None => return Ok((members, pages)),
            }
        }
        Err(ArmError::new(400, "UnexpectedAnswer", "the list has no end", path))
    }

    /// Where a long-running operation is; its failure is the error.
    pub async fn operation(&self, url: &str, resource: &str, call: Call) -> Result<Progress, ArmError> {
        let answer = self
            .get(url, call)
            .await
            .map_err(|error| ArmError { resource: super::error::short_name(resource), ..error })?;
        let status =
            answer.body["status"].as_str().unwrap_or(if answer.status == 202 { "Running" } else { "Succeeded" });
        match status.to_ascii_lowercase().as_str() {
            "succeeded" => Ok(Progress::Done),
            "failed" | "canceled" | "cancelled" => Err(ArmError::from_operation(&answer.body, resource)),
            _ => Ok(Progress::Running(status.to_owned())),
        }
    }

    /// One request, repeated until it is answered, refused for good, or out of time.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>, call: Call) -> Result<Answer, ArmError> {
        let url = self.url(path)?;
        let body = body.filter(|body| !body.is_null()).map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let started = Instant::now();
        let mut backoff = FIRST_BACKOFF;
        loop {
            let error = match self.attempt_logged_in(&method, &url, &body, call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let replicating = method == Method::PUT && error.is_not_found() && started.elapsed() < REPLICATION_TIME;
            let wait = match error.retry {
                Retry::After(wait) => wait,
                Retry::Soon => self.world.jitter(backoff),
                _ if replicating => self.world.jitter(backoff),
                _ => return Err(error),
            };
            if wait >= call.deadline.saturating_duration_since(Instant::now()) {
                return Err(error);
            }
            add_one(&self.usage.repeated);
            pause(wait).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    /// One attempt, and a second one with a fresh token if the first token was refused.
    async fn attempt_logged_in(
        &self,
        method: &Method,
        url: &Uri,
        body: &Bytes,
        call: Call,
    ) -> Result<Answer, ArmError> {
        let mut refreshed = false;
        loop {
            let token = timeout_at(call.deadline, self.tokens.token()).await;
            let token = token.map_err(|_| ArmError::out_of_time(url.path(), "waiting for the login service"))?;
            let token = token.map_err(|error| ArmError::login(&error, url.path()))?;
            let result = self.attempt(method, url, body, token.expose(), call).await;
            match result {
                Err(error) if error.status == 401 && !refreshed => {
                    refreshed = true;
                    self.tokens.forget(&token).await;
                }
                result => return result,
            }
        }
    }

    async fn attempt(
        &self,
        method: &Method,
        url: &Uri,
        body: &Bytes,
        token: &str,
        call: Call,
    ) -> Result<Answer, ArmError> {
        let charges = charges(method, url.path());
        let leave = async {
            self.budget.acquire(charges.clone(), call.priority).await;
            self.in_flight.acquire().await
        };
        let _flight = timeout_at(call.deadline, leave)
            .await
            .map_err(|_| ArmError::out_of_time(url.path(), "waiting for Azure's request limits"))?;
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {token}"))
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("x-ms-client-request-id", self.world.request_id())
            .body(body.clone())
            .map_err(|error| ArmError::new(400, "InvalidRequest", error.to_string(), url.path()))?;
        self.usage.count(method);
        let patience = call.deadline.saturating_duration_since(Instant::now()).min(ATTEMPT_TIMEOUT);
        match self.http.send(request, patience).await {
            Ok(answer) => self.judge(method, url, &charges, answer),
            Err(cause) => {
                let error = ArmError::transport(&cause, url.path());
                let repeatable = method != Method::POST || cause.never_sent();
                Err(if repeatable { error } else { ArmError { retry: Retry::Never, ..error } })
            }
        }
    }

    fn judge(
        &self,
        method: &Method,
        url: &Uri,
        charges: &[Bucket],
        answer: http::Response<Bytes>,
    ) -> Result<Answer, ArmError> {
        let (parts, body) = answer.into_parts();
        self.budget.observe(&parts.headers);
        let status = parts.status.as_u16();
        let retry_after = retry_after(&parts.headers);
        let body = parse(&body);
        if parts.status.is_success() {
            let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let (operation, location) = (text("azure-asyncoperation"), text("location"));
            return Ok(Answer { status, body, operation, location, retry_after });
        }
        let mut error = ArmError::from_response(status, &body, url.path());
        if status == 429 {
            add_one(&self.usage.throttled);
            if error.class == ErrorClass::Throttled {
                self.budget.close(charges, retry_after.unwrap_or(FIRST_BACKOFF));
            }
        }
        let transient = matches!(error.class, ErrorClass::Throttled | ErrorClass::Conflict | ErrorClass::Unavailable);
        match retry_after {
            Some(wait) if error.retry == Retry::Soon || transient => error.retry = Retry::After(wait),
            _ => {}
        }
        if method == Method::POST && error.class == ErrorClass::Unavailable {
            error.retry = Retry::Never;
        }
        Err(error)
    }

    /// The whole address of a path, or of a link that Azure gave us. The token goes to Azure's own host only.
    fn url(&self, path: &str) -> Result<Uri, ArmError> {
        let bad = |cause: String| ArmError::new(400, "InvalidAddress", cause, path);
        let base = self.arm.to_string();
        let mut whole =
            if path.starts_with('/') { format!("{}{path}", base.trim_end_matches('/')) } else { path.to_owned() };
        if !whole.contains("api-version=") {
            let separator = if whole.contains('?') { '&' } else { '?' };
            whole = format!("{whole}{separator}api-version={}", api_version(path));
        }
        let uri: Uri =
            whole.replace(' ', "%20").parse().map_err(|error: http::uri::InvalidUri| bad(error.to_string()))?;
        if self.is_azure(&uri) { Ok(uri) } else { Err(bad(format!("{uri} is not an address of {base}"))) }
    }

    fn is_azure(&self, uri: &Uri) -> bool {
        let (Some(host), Some(ours)) = (uri.host(), self.arm.host()) else { return false };
        let (host, ours) = (host.to_ascii_lowercase(), ours.to_ascii_lowercase());
        let inside = host == ours || host.strip_suffix(&ours).is_some_and(|prefix| prefix.ends_with('.'));
        inside && uri.scheme() == self.arm.scheme() && (host != ours || port(uri) == port(&self.arm))
    }
}

impl fmt::Debug for ArmClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ArmClient({})", self.arm)
    }
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
}

fn parse(body: &Bytes) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}

/// How long Azure asks us to wait (Azure documentation: seconds, or milliseconds in two spellings).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let millis = number("retry-after-ms").or_else(|| number("x-ms-retry-after-ms")).map(Duration::from_millis);
    millis.or_else(|| number("retry-after").map(Duration::from_secs))
}

/// The version of the interface for each type, pinned: stable ones that are deployed everywhere (Azure SDK and CLI source).
pub fn api_version(path: &str) -> &'static str {
    let path = path.split('?').next().unwrap_or_default().to_ascii_lowercase();
    let Some(start) = path.rfind("/providers/") else {
        let group = path.contains("/resourcegroups") || path.ends_with("/resources") || path.ends_with("/providers");
        return if group { "2021-04-01" } else { "2022-12-01" };
    };
    let kind = &path[start + "/providers/".len()..];
    let mut parts = kind.split('/');
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        (_, "" | "register" | "unregister") => "2021-04-01",
        ("microsoft.compute", "skus") => "2021-07-01",
        ("microsoft.compute", "disks") => "2024-03-02",
        ("microsoft.compute", "galleries") => "2023-07-03",
        ("microsoft.compute", _) => "2024-11-01",
        ("microsoft.network", _) => "2024-05-01",
        ("microsoft.authorization", "locks") => "2020-05-01",
        ("microsoft.authorization", _) => "2022-04-01",
        _ => "2021-04-01",
    }
}

#[cfg(test)]
#[path = "arm_tests.rs"]
mod tests;
