//! The failure matrix: every step of a recipe meets every kind of trouble at every point, and each time the next run
//! goes on from there.
//!
//! - [`scene`]: one environment on one world, and the program that is started in it again and again
//! - [`invariants`]: what must hold whatever happens
//! - [`lossy`]: answers that are lost

pub mod invariants;
pub mod lossy;
pub mod scene;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use deploy::{recipe::Manner, session::SessionError};
use engine::{Event, FailureKind, StepId, pause, runner::FaultPoint};

use lossy::{Client, Loss, Lossy};
use scene::{Blow, End, Place, Recipe, SEED, Scene, describe, is_too_late};

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The step fails: before its first effect, or at its start if it has none.
    Failure,
    /// The step gets no further than that until its deadline.
    Timeout,
    /// The program is killed before each effect.
    CrashBeforeEffect,
    /// The program is killed after each effect.
    CrashAfterEffect,
    /// The program is killed when the step holds and nobody knows.
    CrashBeforeRecord,
    /// The program is killed when the step is recorded.
    CrashAfterRecord,
    /// The step is run again, though it holds.
    Twice,
}

impl Trouble {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Failure,
        Self::Timeout,
        Self::CrashBeforeEffect,
        Self::CrashAfterEffect,
        Self::CrashBeforeRecord,
        Self::CrashAfterRecord,
        Self::Twice,
    ];

    /// The point at which the program is killed.
    fn crash(self) -> Option<FaultPoint> {
        match self {
            Self::CrashBeforeEffect => Some(FaultPoint::BeforeEffect),
            Self::CrashAfterEffect => Some(FaultPoint::AfterEffect),
            Self::CrashBeforeRecord => Some(FaultPoint::BeforeRecord),
            Self::CrashAfterRecord => Some(FaultPoint::AfterRecord),
            Self::Failure | Self::Timeout | Self::Twice => None,
        }
    }
}

/// A cluster, and where its environments may be.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// How many controllers.
    pub controllers: u16,
    /// How many workers.
    pub workers: u16,
    /// What goes wrong in the world during the first run of each cell.
    pub faults: Vec<twin::Fault>,
    /// A directory for the environments, one a cell.
    pub directory: PathBuf,
    /// How environments are taken down: each cell at once, if it is not in order.
    pub manner: Manner,
}

/// How large a matrix was, and what it found.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Steps.
    pub steps: usize,
    /// Kinds of trouble.
    pub points: usize,
    /// Runs under trouble: a step may have several effects, or none.
    pub cells: usize,
    /// Cells in which the run itself got over the trouble.
    pub overcome: usize,
    /// What went wrong, each with its cell.
    pub problems: Vec<String>,
}

/// What is done after the run under trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It is deployed, and then reset.
    Deploy,
    /// It is reset at once.
    Reset,
}

/// What an undisturbed deployment and reset look like.
struct Course {
    cluster: String,
    deploy: Vec<Place>,
    reset: Vec<Place>,
    messages: [usize; 2],
    machines: Vec<(String, String)>,
    ledger: Vec<twin::Entry>,
}

impl Matrix {
    /// Runs the recipe under each of these kinds of trouble, at each step.
    pub fn run(&self, recipe: Recipe, troubles: &[Trouble]) -> Outcome {
        self.with_course(|course, outcome| {
            let passed = course.passed(recipe);
            let steps = passed.iter().map(|place| &place.step).collect::<BTreeSet<_>>();
            (outcome.steps, outcome.points) = (steps.len(), troubles.len());
            for &trouble in troubles {
                if trouble == Trouble::Twice {
                    self.cell(outcome, "twice", steps.len(), self.twice(course, passed));
                    continue;
                }
                for (number, blow) in blows(passed, trouble).into_iter().enumerate() {
                    // As a rule the deployment goes on; every third time it is taken down as it is.
                    let crash = trouble.crash().is_some();
                    let at_once = crash && number % 3 == 2 || self.manner != Manner::Orderly;
                    let then = if at_once { Then::Reset } else { Then::Deploy };
                    self.cell(
                        outcome,
                        &format!("{recipe:?} {blow:?}"),
                        1,
                        self.struck(course, recipe, &blow, then, number),
                    );
                }
            }
        })
    }

    /// Kills the program after each thing that it says, and goes on.
    pub fn kill_after_each_message(&self, recipe: Recipe) -> Outcome {
        self.with_course(|course, outcome| {
            outcome.points = course.messages[usize::from(recipe == Recipe::Reset)];
            outcome.steps = 1;
            for number in 0..outcome.points {
                let blow = Blow::CrashAfterMessage(number);
                let then = if recipe == Recipe::Deploy && number % 3 < 2 { Then::Deploy } else { Then::Reset };
                self.cell(
                    outcome,
                    &format!("{recipe:?} {blow:?}"),
                    1,
                    self.struck(course, recipe, &blow, then, number),
                );
            }
        })
    }

    /// Loses each answer that the client gets to a request that changes something, one a time, in a deployment and its
    /// teardown.
    pub fn lose_each_answer(&self, client: Client) -> Outcome {
        self.with_course(|course, outcome| {
            outcome.points = 1;
            outcome.steps = course.ledger.iter().filter(|entry| client.has_sent(entry)).count();
            for number in 0..outcome.steps {
                self.cell(
                    outcome,
                    &format!("lost answer {number} to {client:?}"),
                    1,
                    self.lost(course, client, number),
                );
            }
        })
    }

    /// Somebody deletes the resource group, and a deployment follows: while it is being deleted, and when it is gone.
    pub fn delete_the_group(&self) -> Outcome {
        self.with_course(|course, outcome| {
            (outcome.steps, outcome.points) = (1, 2);
            for number in 0..2 {
                self.cell(outcome, &format!("group deleted {number}"), 1, self.without_group(course, number));
            }
        })
    }

    async fn without_group(&self, course: &Course, number: u64) -> Result<bool, String> {
        let mut scene = self.scene(&format!("group-{number}"))?;
        scene.invite_strangers(&course.cluster).await?;
        finished(scene.run(Recipe::Deploy, &Blow::None).await?)?;
        scene.delete_group(&course.cluster).await?;
        pause(Duration::from_secs(900 * number)).await;
        // The cluster is lost with its machines, and another one is founded only if somebody says so.
        match scene.run(Recipe::Deploy, &Blow::None).await? {
            End::Failed(SessionError::Failed(failures)) if failures[0].kind == FailureKind::Refused => {}
            other => return Err(format!("a lost cluster is replaced unasked: {}", describe(&other))),
        }
        scene.start_anew = true;
        let end = scene.run(Recipe::Deploy, &Blow::None).await?;
        scene.start_anew = false;
        scene.check_deployed(&end).await?;
        reset(&mut scene).await?;
        Ok(false)
    }

    fn with_course(&self, visit: impl FnOnce(&Course, &mut Outcome)) -> Outcome {
        let mut outcome = Outcome::default();
        match in_a_runtime(self.course()) {
            Ok(course) => visit(&course, &mut outcome),
            Err(problem) => outcome.problems.push(format!("the undisturbed course: {problem}")),
        }
        outcome
    }

    fn cell(&self, outcome: &mut Outcome, name: &str, size: usize, cell: impl Future<Output = Result<bool, String>>) {
        outcome.cells += size;
        match in_a_runtime(cell) {
            Ok(overcome) => outcome.overcome += usize::from(overcome),
            Err(problem) => outcome.problems.push(format!("{}+{} {name}: {problem}", self.controllers, self.workers)),
        }
    }

    fn scene(&self, name: &str) -> Result<Scene, String> {
        let mut scene = Scene::new(&self.directory.join(name), self.controllers, self.workers)?;
        scene.manner = self.manner;
        scene.twin().with(|world| world.faults.active.clone_from(&self.faults));
        Ok(scene)
    }

    async fn course(&self) -> Result<Course, String> {
        let mut scene = self.scene("course")?;
        let end = scene.run(Recipe::Deploy, &Blow::None).await?;
        let (deploy, deploy_messages) = (scene.passed(), scene.messages());
        let cluster = scene.cluster().unwrap_or_default();
        let struck = scene.twin().with(|world| world.faults.struck());
        if let Some(idle) = self.faults.iter().find(|fault| !struck.contains(&fault.name)) {
            return Err(format!("{idle:?} never strikes"));
        }
        let End::Finished(finished) = end else { return Err(describe(&end)) };
        let machines = finished.status.nodes.iter();
        let machines = machines.map(|node| (node.name.clone(), node.public_ip.clone().unwrap_or_default())).collect();
        let end = scene.run(Recipe::Reset, &Blow::None).await?;
        let (reset, reset_messages) = (scene.passed(), scene.messages());
        match end {
            End::Finished(_) => Ok(Course {
                cluster,
                deploy,
                reset,
                messages: [deploy_messages, reset_messages],
                machines,
                ledger: scene.ledger(),
            }),
            other => Err(describe(&other)),
        }
    }

    /// A run under trouble, and what becomes of it.
    async fn struck(
        &self,
        course: &Course,
        recipe: Recipe,
        blow: &Blow,
        then: Then,
        number: usize,
    ) -> Result<bool, String> {
        let mut scene = self.scene(&cell_name(recipe, blow))?;
        scene.invite_strangers(&course.cluster).await?;
        if recipe == Recipe::Reset {
            finished(scene.run(Recipe::Deploy, &Blow::None).await?)?;
        }
        let end = scene.run(recipe, blow).await?;
        as_expected(blow, &end)?;
        scene.twin().with(|world| world.faults.active.clear());
        // The next run comes at once, or when the world has settled.
        pause(if number.is_multiple_of(2) { Duration::ZERO } else { Duration::from_secs(600) }).await;
        if then == Then::Deploy {
            let end = scene.run(Recipe::Deploy, &Blow::None).await?;
            // What is half torn down is not built on: that is said, and nothing is touched.
            if !(recipe == Recipe::Reset && is_unfinished(&end)) {
                scene.check_deployed(&end).await?;
            }
        }
        reset(&mut scene).await?;
        // The directory and the world are as good as new.
        if then == Then::Reset && number.is_multiple_of(5) {
            finished(scene.run(Recipe::Deploy, &Blow::None).await?)?;
            reset(&mut scene).await?;
        }
        Ok(false)
    }

    /// A finished deployment forgets one step after the other.
    async fn twice(&self, course: &Course, passed: &[Place]) -> Result<bool, String> {
        let mut scene = self.scene("twice")?;
        scene.invite_strangers(&course.cluster).await?;
        finished(scene.run(Recipe::Deploy, &Blow::None).await?)?;
        for place in passed.iter().filter(|place| place.point == FaultPoint::AfterRecord) {
            scene.forget(&place.step)?;
            let end = scene.run(Recipe::Deploy, &Blow::None).await?;
            scene.check_deployed(&end).await.map_err(|problem| format!("{}: {problem}", place.step))?;
        }
        reset(&mut scene).await?;
        Ok(false)
    }

    /// A deployment and a teardown in which one answer is lost. Either the run gets over it, or the next one does.
    async fn lost(&self, course: &Course, client: Client, number: usize) -> Result<bool, String> {
        let mut scene = self.scene(&format!("{client:?}-{number}"))?;
        scene.invite_strangers(&course.cluster).await?;
        let loss = Loss::new(client, number, scene.ledger().len(), course.machines.clone());
        let lossy = |scene: &mut Scene| {
            let twin = scene.twin().clone();
            scene.reroute(|inner| Arc::new(Lossy::new(inner, twin, loss.clone())));
        };
        lossy(&mut scene);
        let mut overcome = true;
        let mut end = scene.run(Recipe::Deploy, &Blow::None).await?;
        if !matches!(end, End::Finished(_)) {
            overcome = false;
            end = scene.run(Recipe::Deploy, &Blow::None).await?;
        }
        scene.check_deployed(&end).await?;
        lossy(&mut scene);
        if !matches!(scene.run(Recipe::Reset, &Blow::None).await?, End::Finished(_)) {
            overcome = false;
            reset(&mut scene).await?;
        }
        if loss.is_lost() { Ok(overcome) } else { Err("no answer was lost".to_owned()) }
    }
}

impl Course {
    fn passed(&self, recipe: Recipe) -> &[Place] {
        match recipe {
            Recipe::Deploy => &self.deploy,
            Recipe::Reset => &self.reset,
        }
    }
}

/// The blows of one kind of trouble, in the order of the undisturbed course.
fn blows(passed: &[Place], trouble: Trouble) -> Vec<Blow> {
    if let Some(point) = trouble.crash() {
        return passed.iter().filter(|place| place.point == point).cloned().map(Blow::Crash).collect();
    }
    let starts = passed.iter().filter(|place| place.point == FaultPoint::Start);
    let first = |step: &StepId| Place { point: FaultPoint::BeforeEffect, step: step.clone(), occurrence: 0 };
    let places =
        starts.map(|start| if passed.contains(&first(&start.step)) { first(&start.step) } else { start.clone() });
    match trouble {
        Trouble::Timeout => places.map(Blow::Hang).collect(),
        _ => places.map(Blow::Fail).collect(),
    }
}

fn cell_name(recipe: Recipe, blow: &Blow) -> String {
    let text = format!("{recipe:?}-{blow:?}");
    text.chars().map(|character| if character.is_alphanumeric() { character } else { '-' }).collect()
}

/// The blow has struck, and the run says what it was.
fn as_expected(blow: &Blow, end: &End) -> Result<(), String> {
    let told = match (blow, end) {
        (Blow::None, End::Finished(_))
        | (Blow::Crash(_) | Blow::CrashAfterMessage(_) | Blow::CrashAfterTheEnd, End::Crashed) => true,
        (Blow::Fail(_), End::Failed(error)) => error.to_string().contains("injected failure"),
        (Blow::Hang(_), end) => is_too_late(end),
        _ => false,
    };
    if told { Ok(()) } else { Err(format!("the run under trouble: {}", describe(end))) }
}

fn is_unfinished(end: &End) -> bool {
    matches!(end, End::Failed(error) if error.to_string().contains("a teardown of this cluster has begun"))
}

fn finished(end: End) -> Result<(), String> {
    match end {
        End::Finished(_) => Ok(()),
        other => Err(describe(&other)),
    }
}

/// Takes the environment down; a run that ended before it had made anything has nothing to take down.
async fn reset(scene: &mut Scene) -> Result<(), String> {
    let is_there = scene.told().iter().any(|told| matches!(told.record.event, Event::Settled { .. }));
    let end = scene.run(Recipe::Reset, &Blow::None).await?;
    match end {
        End::Finished(_) => Ok(()),
        End::Failed(SessionError::NoCluster(_)) if !is_there => Ok(()),
        other => Err(format!("the teardown: {}", describe(&other))),
    }
}

/// A runtime of its own for each world, with a clock that jumps from event to event.
fn in_a_runtime<T>(future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = rehearsal::runtime(SEED).enable_time().build().map_err(|error| error.to_string())?;
    runtime.block_on(future)
}
