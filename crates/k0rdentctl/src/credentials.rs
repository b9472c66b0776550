//! Who we are towards Azure: the first of the four ways that the surroundings offer.

use std::{path::PathBuf, process::Stdio, sync::Arc};

use async_trait::async_trait;
use deploy::{
    azure::{AzureCliLogin, Credentials},
    secret::Secret,
};
use tokio::process::Command;

use crate::{
    error::{CommandError, Exit},
    settings::Surroundings,
};

/// The credentials, or how to give them. What is named explicitly goes before a login of the Azure CLI that happens to
/// be there.
pub(crate) fn credentials(surroundings: &Surroundings, tenant: Option<&str>) -> Result<Credentials, CommandError> {
    let variable = |name: &str| surroundings.variable(name).map(str::to_owned);
    let tenant = variable("AZURE_TENANT_ID").or_else(|| tenant.map(str::to_owned));
    let client_id = variable("AZURE_CLIENT_ID");
    let application = |with: &str| match (tenant.clone(), client_id.clone()) {
        (Some(tenant), Some(client_id)) => Ok((tenant, client_id)),
        (None, _) => Err(incomplete(with, "AZURE_TENANT_ID")),
        (_, None) => Err(incomplete(with, "AZURE_CLIENT_ID")),
    };
    if let Some(secret) = variable("AZURE_CLIENT_SECRET") {
        let (tenant, client_id) = application("AZURE_CLIENT_SECRET")?;
        return Ok(Credentials::ServicePrincipal { tenant, client_id, secret: Secret::new(secret) });
    }
    if let Some(file) = variable("AZURE_FEDERATED_TOKEN_FILE") {
        let (tenant, client_id) = application("AZURE_FEDERATED_TOKEN_FILE")?;
        return Ok(Credentials::WorkloadIdentity { tenant, client_id, token_file: file.into() });
    }
    match variable("K0RDENT_MANAGED_IDENTITY").as_deref() {
        Some("1" | "true" | "yes") => return Ok(Credentials::ManagedIdentity { client_id }),
        None | Some("0" | "false" | "no") => {}
        Some(other) => {
            let text = format!("K0RDENT_MANAGED_IDENTITY is {other:?}, which is neither 1 nor 0");
            return Err(CommandError::usage(text));
        }
    }
    if client_id.is_some() && variable("AZURE_TENANT_ID").is_some() {
        let text = "AZURE_CLIENT_ID and AZURE_TENANT_ID are set; AZURE_CLIENT_SECRET is not";
        let ways = "set AZURE_CLIENT_SECRET, or AZURE_FEDERATED_TOKEN_FILE for a workload identity; or unset AZURE_CLIENT_ID to \
            use the login of the Azure CLI";
        return Err(CommandError::new(Exit::Refused, text).hint(ways));
    }
    match surroundings.find_program("az") {
        Some(program) => Ok(Credentials::AzureCli { login: Arc::new(AzureCli { program, tenant }) }),
        None => Err(none()),
    }
}

fn incomplete(with: &str, missing: &str) -> CommandError {
    CommandError::new(Exit::Refused, format!("{with} is set and {missing} is not")).hint(format!("set {missing}"))
}

fn none() -> CommandError {
    let ways = [
        "no credentials for Azure; nothing was created. Any one of these will do:",
        "  an application:      AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
        "  a workload identity: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE",
        "  a managed identity:  K0RDENT_MANAGED_IDENTITY=1 on a machine in Azure",
        "  the Azure CLI:       az login",
    ];
    CommandError::new(Exit::Refused, ways.join("\n")).hint("try it without an account: k0rdentctl rehearse")
}

/// The person that is logged in to the Azure CLI.
struct AzureCli {
    program: PathBuf,
    tenant: Option<String>,
}

#[async_trait]
impl AzureCliLogin for AzureCli {
    async fn access_token(&self, scope: &str) -> Result<Secret, String> {
        #[expect(clippy::disallowed_methods, reason = "the login of this program is what the user offers")]
        let mut command = Command::new(&self.program);
        command.args(["account", "get-access-token", "--output", "json", "--scope", scope]);
        if let Some(tenant) = &self.tenant {
            command.args(["--tenant", tenant]);
        }
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.map_err(|error| format!("{}: {error}", self.program.display()))?;
        if output.status.success() {
            return Ok(Secret::new(String::from_utf8_lossy(&output.stdout)));
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }
}
