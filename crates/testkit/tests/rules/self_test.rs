//! The rules can be broken: each is shown a small source that breaks it.

use crate::{
    effects, layers, secrets,
    source::{Findings, Source, broken},
    upkeep, world,
};

/// A step as it must not be.
const BAD: &str = r##"
//! println!("in a comment"), tokio::time::sleep(), StrictHostKeyChecking=no
use std::env;
use tokio::net::TcpStream;
/* tokio::spawn(async {}); /* nested */ todo!() */
pub(super) async fn bad<'a>(names: &'a [u8; 2]) -> [u8; 2] {
    let text = "env::var println!( // no comment";
    let raw = r#"TcpListener " todo!()"#;
    let quote = ('"', '\'', '\\', b'"');
    deployment.azure.arm.put(&path).await;
    context.intend("late").await?;
    remote.run("sudo rm -rf /").await;
    let intent = "unused";
    Failure::new(format!("the password is {}", secret.expose()));
    environment.artifact(context, &file, secret.expose(), Access::Public)?;
    let tls = rustls::ClientConfig::builder().dangerous();
    println!("{}", env::var("HOME"));
    tokio::time::sleep(second).await;
    tokio::select! { _ = one => {}, _ = two => {} }
    tokio::spawn(nothing);
    fs_err::write("file", "text")?;
    remote.run("sudo {BINARY} kubectl get nodes").await;
    todo!()
}
fn without_proof(&self) { api.patch(name); }
fn with_proof(&self, _intent: &Intent) { api.patch(name); }
fn good(&self) {
    if deployment.inventory.find(name).is_some() { return; }
    context.intend("create").await?;
    arm.put(path).await?;
    let text = Secret::new(format!("key {}", secret.expose()));
    environment.artifact(context, &file, secret.expose(), Access::Secret)?;
    twin.sleep(second).await;
    command.env("NAME", env!("CARGO_PKG_NAME"));
}
#[cfg(test)]
mod tests {
    #[tokio::test]
    fn fine_here() { println!("{}", std::env::var("HOME")); arm.put(path); }
}
"##;

fn found(find: impl Fn(&Source) -> Findings) -> Vec<String> {
    let source = Source::new("crates/deploy/src/steps/bad.rs", BAD);
    broken(&[source], &[], find)
        .iter()
        .map(|line| line.trim_start_matches("crates/deploy/src/steps/bad.rs:").to_owned())
        .collect()
}

#[test]
fn every_rule_about_sources_can_be_broken() {
    assert_eq!(found(layers::reads_environment), ["3: env", "17: env"]);
    assert_eq!(found(layers::prints), ["17: println!"]);
    assert_eq!(found(world::opens_sockets), ["4: TcpStream"]);
    assert_eq!(found(world::writes_files), ["21: fs_err write"]);
    assert_eq!(found(world::sleeps), ["18: sleep"]);
    assert_eq!(found(world::chooses_by_chance), ["19: tokio::select!"]);
    assert_eq!(found(world::outlives), ["20: tokio::spawn"]);
    assert_eq!(found(world::waits_for_real_time), ["38: #[tokio::test"]);
    assert!(!found(world::does_more_than_think).is_empty());
    assert_eq!(found(effects::acts_without_intention), ["10: .put(", "25: .patch(", "26: .patch("]);
    assert_eq!(found(effects::creates_without_looking), ["10: .put("]);
    assert_eq!(found(effects::writes_without_proof), ["25: fn without_proof"]);
    assert_eq!(found(effects::changes_the_cloud), ["10: .put(", "25: .patch(", "26: .patch(", "30: .put("]);
    assert_eq!(found(secrets::exposes_in_messages), ["14: .expose()"]);
    assert_eq!(found(secrets::writes_secrets_openly), ["15: .expose()"]);
    assert_eq!(found(secrets::trusts_anybody), ["16: dangerous()"]);
    assert_eq!(found(upkeep::is_unfinished), ["23: todo!"]);
}

#[test]
fn a_command_before_its_intention_is_found() {
    let source =
        Source::new("a.rs", "async fn step() {\n remote.run(\"sudo reboot\");\n context.intend(\"reboot\");\n}\n");
    assert_eq!(broken(&[source], &[], effects::acts_without_intention), ["a.rs:2: a command as administrator"]);
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let file = |code: usize, tests: usize| {
        let text =
            format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "use a;\n".repeat(code), "fn b() {}\n".repeat(tests));
        upkeep::is_too_long(&Source::new("a.rs", &text))
    };
    assert_eq!(file(600, 400), []);
    assert_eq!(file(601, 0), [(0, "601 lines".to_owned())]);
}

#[test]
fn an_exception_that_nobody_needs_is_found() {
    let source = Source::new("a.rs", "fn a() {}");
    assert_eq!(broken(&[source], &[("b.rs", "no reason")], layers::prints), ["b.rs: needs no exception any more"]);
}
