//! Tokens for ARM: four ways to get one, one token at a time, renewed before it expires.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    http::{HttpClient, HttpError, METADATA_HOST},
    seam::{World, pause},
    secret::Secret,
};

/// A token is renewed this long before it expires.
const RENEW_BEFORE: time::Duration = time::Duration::minutes(5);

/// A token is renewed after this long at the latest.
const LONGEST_LIFETIME_SECONDS: i64 = 24 * 60 * 60;

/// How long one attempt to get a token may take, and all of them together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(90);

/// What to do where nobody knows better.
const CHECK_NETWORK: &str = "Check the network connection and the name of the login endpoint, then repeat.";

/// The metadata service's own version (Azure documentation).
const METADATA_API_VERSION: &str = "2018-02-01";

/// Who we are towards Azure. The program decides which, and where the values come from.
#[derive(Clone)]
pub enum Credentials {
    /// An application with a secret.
    ServicePrincipal {
        /// The tenant's identifier or domain.
        tenant: String,
        /// The application's identifier.
        client_id: String,
        /// The application's secret.
        secret: Secret,
    },
    /// An application that proves itself with a token of another issuer, such as a Kubernetes cluster or a CI system.
    WorkloadIdentity {
        /// The tenant's identifier or domain.
        tenant: String,
        /// The application's identifier.
        client_id: String,
        /// The file with the issuer's token, read anew each time.
        token_file: PathBuf,
    },
    /// The identity of the Azure machine that we run on.
    ManagedIdentity {
        /// Which of the machine's identities; the only one if absent.
        client_id: Option<String>,
    },
    /// The person that is logged in to the Azure CLI.
    AzureCli {
        /// Runs the Azure CLI.
        login: Arc<dyn AzureCliLogin>,
    },
}

/// Runs the Azure CLI; the program provides it because a child process belongs to the world.
#[async_trait]
pub trait AzureCliLogin: Send + Sync {
    /// The standard output of `az account get-access-token --output json --scope SCOPE`, or what went wrong: what it has
    /// written to its standard error.
    async fn access_token(&self, scope: &str) -> Result<Secret, String>;

    /// The tenant that is asked for a token, if one was named.
    fn tenant(&self) -> Option<&str>;
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The login service says no.
    #[error("login refused: {code}: {message}")]
    Refused {
        /// The code of the protocol or of Entra, such as `invalid_client` or `AADSTS7000215`.
        code: String,
        /// The first line of the explanation.
        message: String,
    },
    /// The login service cannot be asked.
    #[error("login not possible: {why}")]
    Unreachable {
        /// Why.
        why: String,
        /// What to do about it.
        advice: String,
    },
    /// The Azure CLI gave no token.
    #[error("the Azure CLI gave no token: {0}")]
    AzureCli(String),
    /// The login of the Azure CLI was good once, and somebody has to log in again.
    #[error("the login of the Azure CLI is of no use any more: {why} ({code})")]
    Stale {
        /// Entra's code.
        code: String,
        /// What that means.
        why: &'static str,
        /// The command that logs in.
        command: String,
    },
    /// The Azure CLI does not say when its token expires.
    #[error("the Azure CLI does not say when its token expires: it is older than 2.54")]
    OldCli,
    /// The token file cannot be read.
    #[error("cannot read the federated token: {0}")]
    TokenFile(String),
    /// The answer is not a token.
    #[error("the login service sent something else than a token: {0}")]
    Malformed(String),
}

impl AuthError {
    /// A short code: that of the login service, or ours.
    pub fn code(&self) -> &str {
        match self {
            AuthError::Refused { code, .. } => code,
            AuthError::Unreachable { .. } => "LoginUnreachable",
            AuthError::AzureCli(_) => "AzureCliLogin",
            AuthError::Stale { code, .. } => code,
            AuthError::OldCli => "AzureCliVersion",
            AuthError::TokenFile(_) => "FederatedTokenFile",
            AuthError::Malformed(_) => "LoginAnswer",
        }
    }

    /// What to do next.
    pub fn advice(&self) -> String {
        match self {
            AuthError::Unreachable { advice, .. } => advice.clone(),
            AuthError::Stale { command, .. } => format!("Run `{command}`, then repeat."),
            _ => advice(self.code()).to_owned(),
        }
    }
}

/// What to do about a failed login (Microsoft Entra documentation of the AADSTS codes).
pub(crate) fn advice(code: &str) -> &'static str {
    match code {
        "AzureCliLogin" => {
            "Run `az login`, then repeat; or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET."
        }
        "AzureCliVersion" => {
            "Run `az upgrade`, then repeat; or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET."
        }
        "FederatedTokenFile" => "Check AZURE_FEDERATED_TOKEN_FILE.",
        "LoginAnswer" => "Something between here and the login service answers in its place: check proxies.",
        "AADSTS7000215" => "The client secret is wrong: use the secret's value, not its identifier.",
        "AADSTS7000222" => "The client secret has expired: create a new one for the application.",
        "AADSTS700016" | "unauthorized_client" => {
            "There is no such application in this tenant: check client and tenant."
        }
        "AADSTS90002" | "invalid_tenant" => "There is no such tenant: check the tenant's identifier.",
        "AADSTS70021" | "AADSTS700213" => {
            "No federated credential of the application matches the token: check its issuer, subject and audience."
        }
        "AADSTS53003" => "A Conditional Access policy forbids this login: ask the tenant's administrator.",
        "identity_not_found" | "invalid_request" => {
            "The machine has no such managed identity: assign one, or name the right client identifier."
        }
        "invalid_grant" => "The login has expired: log in again.",
        _ => "Log in again or renew the credential; check tenant, client identifier and secret.",
    }
}

/// Why a person has to log in again, by Entra's code (Microsoft Entra documentation: AADSTS error codes).
const STALE: [(&str, &str); 10] = [
    ("AADSTS700082", "it was not used for so long that it has expired"),
    ("AADSTS70043", "a Conditional Access policy asks for a new login from time to time"),
    ("AADSTS70008", "it has expired"),
    ("AADSTS50076", "multi-factor authentication has become necessary"),
    ("AADSTS50078", "its multi-factor authentication has expired"),
    ("AADSTS50079", "the account has to be enrolled for multi-factor authentication"),
    ("AADSTS50132", "it was revoked"),
    ("AADSTS50133", "it has expired, or the password has changed"),
    ("AADSTS50173", "it was revoked, as it is when the password changes"),
    ("AADSTS50020", "the account does not exist in this tenant"),
];

/// What the Azure CLI means that has written `said` instead of a token.
fn cli_refusal(said: &str, tenant: Option<&str>, scope: &str) -> AuthError {
    let code = said.split(|character: char| !character.is_ascii_alphanumeric()).find(|word| word.starts_with("AADSTS"));
    if let Some((code, why)) = STALE.into_iter().find(|(known, _)| Some(*known) == code) {
        // The Azure CLI names the tenant where it is not its usual one.
        let named = said.split_once("--tenant").map(|(_, rest)| rest.trim_start_matches(['=', ' ', '"', '\'']));
        let is_of_name = |character: char| character.is_ascii_alphanumeric() || "-.".contains(character);
        let named = named.map(|rest| &rest[..rest.find(|character| !is_of_name(character)).unwrap_or(rest.len())]);
        let tenant = tenant.or(named).filter(|tenant| !tenant.is_empty());
        let tenant = tenant.map(|tenant| format!(" --tenant {tenant}")).unwrap_or_default();
        return AuthError::Stale { code: code.to_owned(), why, command: format!("az login{tenant} --scope {scope}") };
    }
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find_map(|line| line.strip_prefix("ERROR:")).or_else(|| lines().next_back());
    AuthError::AzureCli(line.unwrap_or("it said nothing").trim().to_owned())
}

#[derive(Clone)]
struct Token {
    text: Secret,
    renew_at: OffsetDateTime,
}

/// Gives out tokens. Concurrent callers share one request.
pub(crate) struct TokenSource {
    world: World,
    http: HttpClient,
    authority: Uri,
    /// The resource the tokens are for, without a trailing slash.
    resource: String,
    credentials: Credentials,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    cli_subscription: Option<String>,
}

impl TokenSource {
    pub(crate) fn new(
        world: World,
        http: HttpClient,
        authority: Uri,
        resource: String,
        credentials: Credentials,
    ) -> Self {
        TokenSource { world, http, authority, resource, credentials, state: Mutex::default() }
    }

    /// A token that is good for some minutes.
    pub(crate) async fn token(&self) -> Result<Secret, AuthError> {
        // The lock is held during the request: one refresh at a time, and everybody else gets its result.
        let mut state = self.state.lock().await;
        if let Some(token) = state.token.as_ref().filter(|token| self.world.clock.utc() < token.renew_at) {
            return Ok(token.text.clone());
        }
        let token = self.fetch(&mut state).await?;
        state.token = Some(token.clone());
        Ok(token.text)
    }

    /// Forgets the token that ARM refused, unless somebody already renewed it.
    pub(crate) async fn forget(&self, refused: &Secret) {
        let mut state = self.state.lock().await;
        if state.token.as_ref().is_some_and(|token| token.text == *refused) {
            state.token = None;
        }
    }

    /// Who we are there, as the token says, for people: nothing is decided by it.
    pub(crate) async fn account(&self) -> Option<String> {
        let state = self.state.lock().await;
        let claims = state.token.as_ref()?.text.expose().split('.').nth(1)?.trim_end_matches('=').to_owned();
        let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        // Claims of access tokens (Microsoft Entra documentation): people have a name, applications an identifier.
        let claim = |name: &str| claims[name].as_str().filter(|text| !text.is_empty());
        let person = ["upn", "unique_name", "preferred_username"].into_iter().find_map(claim).map(str::to_owned);
        person.or_else(|| Some(format!("application {}", claim("app_displayname").or(claim("appid"))?)))
    }

    /// The subscription that is selected in the Azure CLI, if the token came from there.
    pub(crate) async fn cli_subscription(&self) -> Option<String> {
        self.state.lock().await.cli_subscription.clone()
    }

    fn scope(&self) -> String {
        format!("{}/.default", self.resource)
    }

    async fn fetch(&self, state: &mut State) -> Result<Token, AuthError> {
        match &self.credentials {
            Credentials::ServicePrincipal { tenant, client_id, secret } => {
                self.grant(tenant, client_id, &[("client_secret", secret.expose())]).await
            }
            Credentials::WorkloadIdentity { tenant, client_id, token_file } => {
                let assertion = self.world.files.read_to_string(token_file);
                let assertion = Secret::new(assertion.map_err(|error| AuthError::TokenFile(error.to_string()))?);
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                let proof = [("client_assertion_type", kind), ("client_assertion", assertion.expose().trim())];
                self.grant(tenant, client_id, &proof).await
            }
            Credentials::ManagedIdentity { client_id } => self.metadata(client_id.as_deref()).await,
            Credentials::AzureCli { login } => {
                let text = timeout(TOTAL_TIMEOUT, login.access_token(&self.scope())).await;
                let text = text.unwrap_or_else(|_| Err("it does not end".to_owned()));
                let text = text.map_err(|said| cli_refusal(&said, login.tenant(), &self.scope()))?;
                let answer: Value = serde_json::from_str(text.expose())
                    .map_err(|_| AuthError::AzureCli("its output is not JSON".to_owned()))?;
                if answer["expires_on"].is_null() {
                    return Err(AuthError::OldCli);
                }
                state.cli_subscription = answer["subscription"].as_str().map(str::to_owned);
                self.parse(&answer, "accessToken")
            }
        }
    }

    /// The client credentials grant of OAuth 2.0.
    async fn grant(&self, tenant: &str, client_id: &str, proof: &[(&str, &str)]) -> Result<Token, AuthError> {
        let authority = self.authority.to_string();
        let url = format!("{}/{}/oauth2/v2.0/token", authority.trim_end_matches('/'), encode(tenant));
        let mut form =
            format!("grant_type=client_credentials&client_id={}&scope={}", encode(client_id), encode(&self.scope()));
        for (key, value) in proof {
            form.push_str(&format!("&{key}={}", encode(value)));
        }
        let form = Bytes::from(form);
        let answer = self
            .ask(|| {
                Request::post(&url)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .header("accept", "application/json")
                    .body(form.clone())
            })
            .await?;
        self.parse(&answer, "access_token")
    }

    /// The metadata service of the Azure machine that we run on.
    async fn metadata(&self, client_id: Option<&str>) -> Result<Token, AuthError> {
        let resource = encode(&self.resource);
        let client = client_id.map(|client_id| format!("&client_id={}", encode(client_id))).unwrap_or_default();
        let url = format!(
            "http://{METADATA_HOST}/metadata/identity/oauth2/token?api-version={METADATA_API_VERSION}&resource={resource}{client}"
        );
        let answer = self.ask(|| Request::get(&url).header("metadata", "true").body(Bytes::new())).await?;
        self.parse(&answer, "access_token")
    }

    /// Asks until there is an answer that repeating would not change.
    async fn ask(&self, request: impl Fn() -> http::Result<Request<Bytes>>) -> Result<Value, AuthError> {
        let deadline = Instant::now() + TOTAL_TIMEOUT;
        let mut backoff = Duration::from_secs(1);
        loop {
            let request = request()
                .map_err(|error| AuthError::Unreachable { why: error.to_string(), advice: CHECK_NETWORK.to_owned() })?;
            let metadata = request.uri().host() == Some(METADATA_HOST);
            let (error, may_pass) = match self.http.send(request, ATTEMPT_TIMEOUT).await {
                Ok(answer) => match judge(answer.status().as_u16(), answer.body(), metadata) {
                    Ok(value) => return Ok(value),
                    Err(error) => error,
                },
                Err(error) => unreachable_because(&error),
            };
            let wait = self.world.jitter(backoff);
            if !may_pass || Instant::now() + wait >= deadline {
                return Err(error);
            }
            pause(wait).await;
            backoff = (backoff * 2).min(Duration::from_secs(20));
        }
    }

    fn parse(&self, answer: &Value, key: &str) -> Result<Token, AuthError> {
        let text = answer[key].as_str().filter(|text| !text.is_empty());
        let text = Secret::new(text.ok_or_else(|| AuthError::Malformed(format!("there is no {key}")))?);
        let now = self.world.clock.utc();
        let lifetime = match (seconds(&answer["expires_on"]), seconds(&answer["expires_in"])) {
            (Some(unix), _) => unix.saturating_sub(now.unix_timestamp()),
            (None, Some(seconds)) => seconds,
            (None, None) => return Err(AuthError::Malformed("it does not say when it expires".to_owned())),
        };
        // Whatever it says, a token is not used for longer than a day; Azure's last for 28 hours at most (Entra documentation).
        let lifetime = time::Duration::seconds(lifetime.clamp(0, LONGEST_LIFETIME_SECONDS));
        // A token with a short life is used for half of it.
        Ok(Token { text, renew_at: now + (lifetime - RENEW_BEFORE).max(lifetime / 2) })
    }
}

/// A number, or a text with a number: the metadata service sends texts (Azure SDK source).
fn seconds(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn unreachable_because(error: &HttpError) -> (AuthError, bool) {
    let advice = error.advice().unwrap_or_else(|| CHECK_NETWORK.to_owned());
    (AuthError::Unreachable { why: error.to_string(), advice }, error.may_pass())
}

/// The answer's content, or the error and whether repeating may help.
fn judge(status: u16, body: &[u8], metadata: bool) -> Result<Value, (AuthError, bool)> {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    if (200..300).contains(&status) {
        return value.ok_or_else(|| (AuthError::Malformed("the answer is not JSON".to_owned()), true));
    }
    // The metadata service answers 404 and 410 while it starts or is updated (Azure documentation).
    let may_pass = matches!(status, 408 | 429 | 500..) || (metadata && matches!(status, 404 | 410));
    let value = value.unwrap_or_default();
    let description = value["error_description"].as_str().unwrap_or_default();
    let line = description.lines().next().unwrap_or_default().trim();
    // Entra puts its own, more precise code in front of the explanation.
    let (entra, message) = match line.split_once(':') {
        Some((code, message)) if code.starts_with("AADSTS") => (Some(code), message.trim()),
        _ => (None, line),
    };
    let code = entra.or(value["error"].as_str()).map_or_else(|| format!("HTTP {status}"), str::to_owned);
    Err((AuthError::Refused { code, message: message.to_owned() }, may_pass))
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::azure::scripted::{Script, answer};

    fn principal() -> Credentials {
        Credentials::ServicePrincipal { tenant: "t".into(), client_id: "c".into(), secret: Secret::new("s+/") }
    }

    fn source(script: &Script, credentials: Credentials) -> TokenSource {
        let world = script.world();
        let authority = Uri::from_static("http://login.example");
        TokenSource::new(world.clone(), HttpClient::plain(&world), authority, "https://arm.example".into(), credentials)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_shared_until_it_expires() {
        let script = Script::new(|request| {
            assert_eq!(request.path, "/t/oauth2/v2.0/token");
            assert_eq!(
                request.text,
                "grant_type=client_credentials&client_id=c&scope=https%3A%2F%2Farm%2Eexample%2F%2Edefault&client_secret=s%2B%2F"
            );
            answer(200, r#"{"token_type":"Bearer","expires_in":3599,"access_token":"A"}"#)
        });
        let source = source(&script, principal());
        let (first, second) = futures::join!(source.token(), source.token());
        assert_eq!((first.unwrap().expose(), second.unwrap().expose()), ("A", "A"));
        assert_eq!(script.seen().len(), 1);
        pause(Duration::from_secs(3200)).await;
        source.token().await.unwrap();
        assert_eq!(script.seen().len(), 1);
        pause(Duration::from_secs(100)).await;
        source.token().await.unwrap();
        assert_eq!(script.seen().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_secret_is_explained_and_not_repeated() {
        let script = Script::new(|_| {
            answer(
                401,
                r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace"}"#,
            )
        });
        let error = source(&script, principal()).token().await.unwrap_err();
        assert_eq!(error.to_string(), "login refused: AADSTS7000215: Invalid client secret provided.");
        assert_eq!(error.advice(), "The client secret is wrong: use the secret's value, not its identifier.");
        assert_eq!(script.seen().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_managed_identity_is_asked_again_while_the_service_starts() {
        let count = AtomicU32::new(0);
        let script = Script::new(move |request| {
            assert_eq!(request.header("metadata"), Some("true"));
            match count.fetch_add(1, Ordering::Relaxed) {
                0 => answer(410, ""),
                1 => answer(503, ""),
                _ => answer(200, r#"{"access_token":"M","expires_on":"4102444800"}"#),
            }
        });
        let source = source(&script, Credentials::ManagedIdentity { client_id: None });
        assert_eq!(source.token().await.unwrap().expose(), "M");
        assert_eq!(script.seen().len(), 3);
    }

    struct Cli;

    #[async_trait]
    impl AzureCliLogin for Cli {
        async fn access_token(&self, scope: &str) -> Result<Secret, String> {
            assert_eq!(scope, "https://arm.example/.default");
            Ok(Secret::new(r#"{"accessToken":"L","expires_on":4102444800,"subscription":"s-1"}"#))
        }

        fn tenant(&self) -> Option<&str> {
            None
        }
    }

    /// An Azure CLI that says no, or something else.
    struct Says(Result<&'static str, &'static str>, Option<&'static str>);

    #[async_trait]
    impl AzureCliLogin for Says {
        async fn access_token(&self, _scope: &str) -> Result<Secret, String> {
            self.0.map(Secret::new).map_err(str::to_owned)
        }

        fn tenant(&self) -> Option<&str> {
            self.1
        }
    }

    async fn said(says: Says) -> String {
        let script = Script::new(|_| answer(500, ""));
        let error = source(&script, Credentials::AzureCli { login: Arc::new(says) }).token().await.err().unwrap();
        format!("{error}\n{}", error.advice())
    }

    /// What Azure CLI 2.60 and later write to their standard error (Azure CLI source: `azure/cli/core/auth/util.py`).
    #[tokio::test(start_paused = true)]
    async fn an_expired_login_of_the_azure_cli_says_why_and_how_to_log_in() {
        let expired = "ERROR: AADSTS700082: The refresh token has expired due to inactivity. The token was issued on 2026-05-01T08:00:00Z and was inactive for 90.00:00:00. Trace ID: 1 Correlation ID: 2 Timestamp: 3\n\
            Interactive authentication is needed. Please run:\naz logout\naz login\n";
        insta::assert_snapshot!(said(Says(Err(expired), None)).await, @"
        the login of the Azure CLI is of no use any more: it was not used for so long that it has expired (AADSTS700082)
        Run `az login --scope https://arm.example/.default`, then repeat.
        ");
        insta::assert_snapshot!(said(Says(Err(expired), Some("contoso.example"))).await, @"
        the login of the Azure CLI is of no use any more: it was not used for so long that it has expired (AADSTS700082)
        Run `az login --tenant contoso.example --scope https://arm.example/.default`, then repeat.
        ");
        let factor = "ERROR: AADSTS50076: Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access '797f4846-ba00-4fd7-ba43-dac1f8f63013'. Trace ID: 1\n\
            Interactive authentication is needed. Please run:\naz logout\naz login --tenant \"00000000-0000-0000-0000-00000000000a\" --scope \"https://management.core.windows.net//.default\"\n";
        insta::assert_snapshot!(said(Says(Err(factor), None)).await, @"
        the login of the Azure CLI is of no use any more: multi-factor authentication has become necessary (AADSTS50076)
        Run `az login --tenant 00000000-0000-0000-0000-00000000000a --scope https://arm.example/.default`, then repeat.
        ");
        let nobody = "ERROR: Please run 'az login' to setup account.\n";
        insta::assert_snapshot!(said(Says(Err(nobody), None)).await, @"
        the Azure CLI gave no token: Please run 'az login' to setup account.
        Run `az login`, then repeat; or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET.
        ");
        let old = r#"{"accessToken": "L", "expiresOn": "2026-11-27 08:00:00.000000", "subscription": "s-1"}"#;
        insta::assert_snapshot!(said(Says(Ok(old), None)).await, @"
        the Azure CLI does not say when its token expires: it is older than 2.54
        Run `az upgrade`, then repeat; or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET.
        ");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lifetime_beyond_all_bounds_is_a_day() {
        for lifetime in [
            r#""expires_in":9223372036854775807"#,
            r#""expires_on":"9223372036854775807""#,
            r#""expires_in":-9223372036854775808"#,
        ] {
            let body = format!(r#"{{"access_token":"A",{lifetime}}}"#);
            let script = Script::new(move |_| answer(200, &body));
            assert_eq!(source(&script, principal()).token().await.unwrap().expose(), "A", "{lifetime}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_azure_cli_also_names_its_subscription() {
        let script = Script::new(|_| answer(500, ""));
        let source = source(&script, Credentials::AzureCli { login: Arc::new(Cli) });
        assert_eq!(source.token().await.unwrap().expose(), "L");
        assert_eq!(source.cli_subscription().await.as_deref(), Some("s-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_federated_token_is_read_from_its_file() {
        let script = Script::new(|request| {
            assert!(request.text.ends_with("jwt%2Dbearer&client_assertion=federated"), "{}", request.text);
            answer(200, r#"{"expires_in":60,"access_token":"W"}"#)
        })
        .file("/token", "federated\n");
        let credentials = |file: &str| Credentials::WorkloadIdentity {
            tenant: "t".into(),
            client_id: "c".into(),
            token_file: file.into(),
        };
        assert_eq!(source(&script, credentials("/token")).token().await.unwrap().expose(), "W");
        let error = source(&script, credentials("/none")).token().await.unwrap_err();
        assert!(matches!(error, AuthError::TokenFile(_)));
    }
}
