//! Commands that would change something, and why they do not.

use super::environment::{CONFIG, TestEnvironment};

#[test]
fn without_credentials_the_four_ways_are_named() {
    let environment = TestEnvironment::with_config(CONFIG);
    insta::assert_snapshot!(environment.run(&["deploy", "-y"]), @"
    --- errors
    error: no credentials for Azure; nothing was created. Any one of these will do:
      an application:      AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET
      a workload identity: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE
      a managed identity:  K0RDENT_MANAGED_IDENTITY=1 on a machine in Azure
      the Azure CLI:       az login
    hint: try it without an account: k0rdentctl rehearse
    --- exit code 3
    ");
    assert!(!environment.home().exists());
    let incomplete = TestEnvironment::with_config(CONFIG).variable("AZURE_CLIENT_SECRET", "hunter2");
    insta::assert_snapshot!(incomplete.run(&["deploy", "-y"]), @"
    --- errors
    error: AZURE_CLIENT_SECRET is set and AZURE_TENANT_ID is not
    hint: set AZURE_TENANT_ID
    --- exit code 3
    ");
    let ids = || {
        let environment = TestEnvironment::with_config(CONFIG).variable("AZURE_CLIENT_ID", "client");
        environment.variable("AZURE_TENANT_ID", "tenant")
    };
    insta::assert_snapshot!(ids().run(&["deploy", "-y"]), @"
    --- errors
    error: AZURE_CLIENT_ID and AZURE_TENANT_ID are set; AZURE_CLIENT_SECRET is not
    hint: set AZURE_CLIENT_SECRET, or AZURE_FEDERATED_TOKEN_FILE for a workload identity; or unset AZURE_CLIENT_ID to use the login of the Azure CLI
    --- exit code 3
    ");
    insta::assert_snapshot!(ids().variable("K0RDENT_MANAGED_IDENTITY", "on").run(&["deploy", "-y"]), @r#"
    --- errors
    error: K0RDENT_MANAGED_IDENTITY is "on", which is neither 1 nor 0
    --- exit code 2
    "#);
}

#[test]
fn nobody_is_there_to_answer() {
    let environment = TestEnvironment::with_config(CONFIG).with_credentials();
    insta::assert_snapshot!(environment.run(&["deploy"]), @"
    --- errors
    error: cannot ask for confirmation (no terminal); nothing was touched
    hint: use --yes to go on without a question
    hint: see what it would do: k0rdentctl plan
    --- exit code 2
    ");
    assert!(!environment.home().exists());
}

#[test]
fn the_lease_is_held_by_somebody() {
    let environment = TestEnvironment::with_config(CONFIG).with_credentials();
    let _journal = environment.take_journal();
    insta::assert_snapshot!(environment.run(&["deploy", "-y", "-q"]), @"
    --- errors
    error: another run is active: `deploy` by ada@desk (process 7) since 2027-01-04 08:00:00 UTC
    hint: watch it with: k0rdentctl events --follow
    --- exit code 4
    ");
    let ran = environment.run(&["deploy", "-y", "--output", "json"]);
    insta::assert_snapshot!(ran.stdout, @r#"{"exit_code":4,"format_version":1,"hints":["watch it with: k0rdentctl events --follow"],"message":"another run is active: `deploy` by ada@desk (process 7) since 2027-01-04 08:00:00 UTC","outcome":"held"}"#);
    assert_eq!(ran.code, 4);
    insta::assert_snapshot!(environment.run(&["reset", "-y"]), @"
    --- errors
    error: another run is active: `deploy` by ada@desk (process 7) since 2027-01-04 08:00:00 UTC
    hint: watch it with: k0rdentctl events --follow
    --- exit code 4
    ");
}

#[test]
fn there_is_nothing_to_reset() {
    let environment = TestEnvironment::with_config(CONFIG);
    insta::assert_snapshot!(environment.run(&["reset"]), @"
    nothing to reset: there is no cluster in ./.k0rdent
    --- errors
    --- exit code 0
    ");
    insta::assert_snapshot!(environment.run(&["reset", "--output", "json"]), @r#"
    {"exit_code":0,"format_version":1,"outcome":"nothing-to-reset"}
    --- errors
    --- exit code 0
    "#);
}

#[test]
fn a_protected_cluster_is_not_reset() {
    let environment = TestEnvironment::with_config("protect: true\n").with_credentials();
    drop(environment.take_journal());
    insta::assert_snapshot!(environment.run(&["reset", "-y"]), @"
    --- errors
    error: the cluster is protected; nothing was touched
    hint: set protect: false in ./k0rdent.yaml
    --- exit code 2
    ");
}

#[test]
fn an_address_that_is_none() {
    let environment =
        TestEnvironment::with_config(CONFIG).with_credentials().variable("K0RDENT_OPERATOR_ADDRESS", "home");
    insta::assert_snapshot!(environment.run(&["deploy", "-y", "-q"]), @r#"
    --- errors
    error: the address from which SSH is to be allowed is not known: "home" is not an address
    hint: set azure.ssh_allowed_from in the configuration, or K0RDENT_OPERATOR_ADDRESS
    --- exit code 3
    "#);
}

#[test]
fn a_cloud_that_is_not_known() {
    let environment =
        TestEnvironment::with_config(CONFIG).variable("AZURE_AUTHORITY_HOST", "https://login.example.com/");
    insta::assert_snapshot!(environment.run(&["plan"]), @r#"
    --- errors
    error: AZURE_AUTHORITY_HOST: "login.example.com" is none of login.microsoftonline.com, login.microsoftonline.us, login.chinacloudapi.cn
    --- exit code 2
    "#);
}

#[test]
fn a_home_that_cannot_be_used() {
    let environment = TestEnvironment::with_config(CONFIG).with_credentials();
    environment.write("home", "a file");
    insta::assert_snapshot!(environment.run(&["deploy", "-y", "-q", "--home", "home"]), @"
    --- errors
    error: home: it is not a directory
    hint: name another with --home DIR
    --- exit code 2
    ");
}
