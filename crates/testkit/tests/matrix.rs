//! The failure matrix: deploy and reset, on three sizes of clusters, under every trouble at every step.
//!
//! The tests are cut so that two processors have about the same to do.

use std::io::Write as _;

use deploy::recipe::Manner;
use testkit::matrix::{
    Matrix, Outcome,
    Trouble::{self, *},
    lossy::Client,
    scene::{Blow, End, Recipe, Scene, describe},
};
use twin::{Fault, FaultKind};

const TROUBLES_THAT_FAIL: &[Trouble] = &[Failure, Timeout, Twice];
const TROUBLES_THAT_KILL: &[Trouble] = &[CrashBeforeEffect, CrashAfterEffect, CrashBeforeRecord, CrashAfterRecord];

/// Runs a part of a matrix, says how large it was, and what it found.
fn expect(name: &str, controllers: u16, workers: u16, faults: Vec<Fault>, part: impl FnOnce(&Matrix) -> Outcome) {
    expect_in(Manner::Orderly, name, controllers, workers, faults, part);
}

fn expect_in(
    manner: Manner,
    name: &str,
    controllers: u16,
    workers: u16,
    faults: Vec<Fault>,
    part: impl FnOnce(&Matrix) -> Outcome,
) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let outcome = part(&Matrix { controllers, workers, faults, directory: home.path().to_owned(), manner });
    let Outcome { steps, points, cells, overcome, problems } = outcome;
    let size = format!("{steps} steps x {points} points, {cells} cells, {overcome} overcome by the run itself");
    // Past the test runner, which shows only what failing tests print.
    writeln!(std::io::stderr(), "{name} on {controllers}+{workers}: {size}").expect("a stream for messages");
    assert!(
        problems.is_empty(),
        "{} of {cells} cells:\n{}",
        problems.len(),
        problems[..problems.len().min(20)].join("\n")
    );
    assert!(cells > 0, "an empty matrix");
}

macro_rules! matrices {
    ($($test:ident: $recipe:ident $controllers:literal + $workers:literal $troubles:expr;)*) => {
        $(#[test]
        fn $test() {
            expect(stringify!($test), $controllers, $workers, Vec::new(), |matrix| matrix.run(Recipe::$recipe, $troubles));
        })*
    };
}

matrices! {
    deploy_on_one_machine: Deploy 1 + 0 Trouble::ALL;
    deploy_on_two_machines: Deploy 1 + 1 Trouble::ALL;
    deploy_on_five_machines_fails: Deploy 3 + 2 TROUBLES_THAT_FAIL;
    deploy_on_five_machines_is_killed: Deploy 3 + 2 TROUBLES_THAT_KILL;
    reset_of_one_machine: Reset 1 + 0 Trouble::ALL;
    reset_of_two_machines: Reset 1 + 1 Trouble::ALL;
    reset_of_five_machines: Reset 3 + 2 Trouble::ALL;
}

/// From wherever a deployment was killed, a teardown by force or in one request leads back to nothing, and goes on where
/// it was killed itself.
macro_rules! teardowns {
    ($($test:ident: $manner:ident $recipe:ident $controllers:literal + $workers:literal $troubles:expr;)*) => {
        $(#[test]
        fn $test() {
            let run = |matrix: &Matrix| matrix.run(Recipe::$recipe, $troubles);
            expect_in(Manner::$manner, stringify!($test), $controllers, $workers, Vec::new(), run);
        })*
    };
}

teardowns! {
    force_from_every_effect_on_two_machines: Force Deploy 1 + 1 &[CrashBeforeEffect, CrashAfterEffect];
    fast_from_every_effect_on_two_machines: Fast Deploy 1 + 1 &[CrashBeforeEffect, CrashAfterEffect];
    force_from_every_effect_on_five_machines: Force Deploy 3 + 2 &[CrashAfterEffect];
    fast_from_every_effect_on_five_machines: Fast Deploy 3 + 2 &[CrashAfterEffect];
    force_is_killed: Force Reset 1 + 1 TROUBLES_THAT_KILL;
    fast_fails_or_is_killed: Fast Reset 1 + 1 &[Failure, CrashBeforeEffect, CrashAfterEffect, CrashBeforeRecord, CrashAfterRecord];
}

#[test]
fn deploy_is_killed_after_each_message() {
    expect("each message of deploy", 1, 1, Vec::new(), |matrix| matrix.kill_after_each_message(Recipe::Deploy));
}

#[test]
fn reset_is_killed_after_each_message() {
    expect("each message of reset", 1, 1, Vec::new(), |matrix| matrix.kill_after_each_message(Recipe::Reset));
}

/// A machine that Azure cannot place is deleted and made again elsewhere: its steps have effects that others have not.
#[test]
fn a_machine_that_is_replaced() {
    let full = Fault { name: FaultKind::Capacity, target: Some("k0s-worker-1".to_owned()), times: Some(1) };
    expect("replacing", 1, 1, vec![full], |matrix| matrix.kill_after_each_message(Recipe::Deploy));
}

/// Flux is asked to try a release again, and the program is killed before or after that: the next run asks anew.
#[test]
fn a_release_that_flux_has_given_up() {
    let late = Fault { name: FaultKind::LateWebhook, target: Some("capi".to_owned()), times: Some(1) };
    let troubles = &[CrashBeforeEffect, CrashAfterEffect];
    expect("late webhook", 1, 0, vec![late], |matrix| matrix.run(Recipe::Deploy, troubles));
}

/// A teardown is over and archived, and the program is killed while it removes what is left: only the journal is there.
#[test]
fn a_teardown_is_killed_while_it_puts_away() {
    for next in [Recipe::Reset, Recipe::Deploy] {
        let (home, aside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let runtime = rehearsal::runtime(0).enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mut scene = Scene::new(home.path(), 1, 0).expect("a scene");
            scene.run(Recipe::Deploy, &Blow::None).await.expect("a deployment");
            scene.run(Recipe::Reset, &Blow::CrashAfterTheEnd).await.expect("a teardown");
            let (journal, kept) = (scene.home().join("journal.sqlite"), aside.path().join("journal.sqlite"));
            fs_err::copy(&journal, &kept).expect("a copy of the journal");
            scene.run(Recipe::Reset, &Blow::None).await.expect("a teardown that is put away");
            fs_err::copy(&kept, &journal).expect("the journal again");
            let end = scene.run(next, &Blow::None).await.expect("no trouble");
            assert!(matches!(end, End::Finished(_)), "{}", describe(&end));
            let archives = fs_err::read_dir(scene.home().join("old_deployments")).expect("archives").flatten();
            // Beside it, a stranger has a file.
            assert_eq!(archives.filter(|archive| archive.path().is_dir()).count(), 1);
        });
    }
}

#[test]
fn the_group_is_deleted_by_somebody() {
    expect("the group is deleted", 1, 1, Vec::new(), Matrix::delete_the_group);
}

macro_rules! lost_answers {
    ($($test:ident: $client:ident;)*) => {
        $(#[test]
        fn $test() {
            expect(stringify!($test), 1, 1, Vec::new(), |matrix| matrix.lose_each_answer(Client::$client));
        })*
    };
}

lost_answers! {
    lost_answers_of_azure: Arm;
    lost_answers_of_machines: Ssh;
    lost_answers_of_the_cluster: Kubernetes;
}
