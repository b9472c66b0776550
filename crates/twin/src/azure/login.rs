//! The login endpoint: OpenID configuration and the client credentials flow (observed with Azure CLI 2.91.0 and
//! azure-identity 1.27.0).

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Value, json};

use super::{
    TENANT,
    call::{Call, Refusal, Reply},
};
use crate::World;

/// How long a token is good for (Azure documentation).
const TOKEN_SECONDS: u64 = 3599;
/// The one secret that is not accepted.
const WRONG_SECRET: &str = "wrong";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Answers one request to the login endpoint.
pub(super) fn answer(world: &mut World, call: &Call) -> Reply {
    let lower: Vec<&str> = call.lower.iter().map(String::as_str).collect();
    match (&call.method, lower.as_slice()) {
        (&Method::GET, [_, "v2.0", ".well-known", "openid-configuration"]) => discovery(call),
        (&Method::POST, [_, "oauth2", "v2.0", "token"]) => token(world, call),
        _ => Reply::new(404, &json!({"error": "not_found", "error_description": format!("nothing at {}", call.path)})),
    }
}

fn tenant(call: &Call) -> &str {
    // "organizations" and "common" stand for the tenant of whoever logs in.
    call.segments.first().map(String::as_str).filter(|tenant| tenant.contains('-')).unwrap_or(TENANT)
}

fn discovery(call: &Call) -> Reply {
    let root = format!("{}/{}", call.base(), call.segments.first().map_or(TENANT, String::as_str));
    Reply::new(
        200,
        &json!({
            "issuer": format!("{}/{}/v2.0", call.base(), tenant(call)),
            "authorization_endpoint": format!("{root}/oauth2/v2.0/authorize"),
            "token_endpoint": format!("{root}/oauth2/v2.0/token"),
            "device_authorization_endpoint": format!("{root}/oauth2/v2.0/devicecode"),
            "jwks_uri": format!("{root}/discovery/v2.0/keys"),
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "tenant_region_scope": null,
        }),
    )
}

fn token(world: &mut World, call: &Call) -> Reply {
    let form = form(&call.body);
    let field = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let problem = |world: &World, status, error: &str, number: u32, text: String| {
        let body = json!({
            "error": error, "error_description": format!("AADSTS{number}: {text}"), "error_codes": [number],
            "timestamp": world.timestamp(), "error_uri": format!("{}/error?code={number}", call.base()),
        });
        Reply::new(status, &body)
    };
    let missing = |world: &World, name: &str| {
        let text = format!("The request body must contain the following parameter: '{name}'.");
        problem(world, 400, "invalid_request", 900_144, text)
    };
    let Some(grant) = field("grant_type") else { return missing(world, "grant_type") };
    if grant != "client_credentials" {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        return problem(world, 400, "unsupported_grant_type", 70_003, text);
    }
    let Some(client) = field("client_id") else { return missing(world, "client_id") };
    if field("scope").is_none() {
        return missing(world, "scope");
    }
    match (field("client_secret"), field("client_assertion"), field("client_assertion_type")) {
        (Some(WRONG_SECRET), ..) => {
            let text = format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, \
                 not the client secret ID, for a secret added to app '{client}'."
            );
            problem(world, 401, "invalid_client", 7_000_215, text)
        }
        (Some(_), ..) | (None, Some(_), Some(ASSERTION_TYPE)) => granted(world, tenant(call), client),
        _ => {
            let text = "'client_assertion' or 'client_secret' is required for the 'client_credentials' grant type.";
            problem(world, 401, "invalid_client", 7_000_216, text.into())
        }
    }
}

fn granted(world: &mut World, tenant: &str, client: &str) -> Reply {
    let identifier = world.azure.identifier("token");
    let issued = world.utc().unix_timestamp();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "aud": "https://management.azure.com", "iss": format!("https://sts.windows.net/{tenant}/"), "tid": tenant,
        "appid": client, "oid": client, "sub": client, "iat": issued, "nbf": issued,
        "exp": issued + TOKEN_SECONDS as i64, "uti": identifier, "ver": "1.0",
    });
    let token = format!("{}.{}.", part(json!({"typ": "JWT", "alg": "none"})), part(claims));
    let expires = world.now + Duration::from_secs(TOKEN_SECONDS);
    world.azure.tokens.insert(token.clone(), expires);
    // In a faster world the client's seconds are longer; it must renew in its own time.
    let client_seconds = (TOKEN_SECONDS as f64 / world.options.speed).floor().max(1.0) as u64;
    let body = json!({
        "token_type": "Bearer", "expires_in": client_seconds, "ext_expires_in": client_seconds, "access_token": token,
    });
    Reply::new(200, &body).header("cache-control", "no-store, no-cache")
}

fn form(body: &[u8]) -> BTreeMap<String, String> {
    let decode = |text: &str| {
        let spaces = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaces).decode_utf8_lossy().into_owned()
    };
    let text = String::from_utf8_lossy(body);
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (decode(key), decode(value))).collect()
}

/// Whether the request carries a token that is in force.
pub(super) fn check(world: &World, call: &Call) -> Result<(), Refusal> {
    let token = call.header("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let Some(token) = token else {
        let text = "Authentication failed. The 'Authorization' header is missing.";
        return Err(Refusal::new(401, "AuthenticationFailed", text));
    };
    match world.azure.tokens.get(token) {
        None => Err(Refusal::new(401, "InvalidAuthenticationToken", "The access token is invalid.")),
        Some(expires) if *expires <= world.now => Err(Refusal::new(
            401,
            "ExpiredAuthenticationToken",
            "The access token expiry UTC time is earlier than current UTC time.",
        )),
        Some(_) => Ok(()),
    }
}

/// The header that tells a client where to log in (Azure documentation).
pub(super) fn challenge(world: &World, refusal: &Refusal) -> (&'static str, String) {
    let url = &world.azure.login_url;
    let value = format!(
        "Bearer authorization_uri=\"{url}/{TENANT}\", error=\"invalid_token\", error_description=\"{}\"",
        refusal.message
    );
    ("www-authenticate", value)
}
