//! What a seed draws: a configuration, a sequence of commands, how each of them ends, and what goes wrong meanwhile.

use std::{fmt, time::Duration};

use deploy::recipe::Manner;
use engine::runner::FaultPoint;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use twin::{Action, Fault, FaultKind};

use super::network::Roughness;

/// What one seed stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// How many controllers.
    pub controllers: u16,
    /// The controllers' zones.
    pub controller_zones: Vec<u8>,
    /// The workers' zones.
    pub worker_zones: Vec<u8>,
    /// Whether the machines are Spot machines.
    pub spot: bool,
    /// Whether somebody else has a resource group with the name that the cluster will want.
    pub squatter: bool,
    /// The commands in order.
    pub acts: Vec<Act>,
}

/// One command.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// What others do to the cluster before.
    pub mischief: Option<Action>,
    /// What is run.
    pub command: Command,
    /// How many workers the configuration has by now.
    pub workers: u16,
    /// How it ends.
    pub ending: Ending,
    /// What is wrong with the world from its beginning.
    pub faults: Vec<Fault>,
    /// When the world is well again; at the end of the command if absent.
    pub faults_end_after: Option<Duration>,
    /// How rough the network is.
    pub roughness: Roughness,
    /// How long nothing happens afterwards.
    pub rest: Duration,
    /// The program's own chance.
    pub chance: u64,
    /// How a reset takes the cluster down.
    pub manner: Manner,
    /// What it is to do with child clusters.
    pub fate: Fate,
    /// What of the environment's directory is lost before.
    pub loss: Option<Loss>,
    /// How many child clusters somebody makes afterwards.
    pub children: u8,
}

/// What a reset is to do with child clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nobody has said.
    Unsaid,
    /// They go first, with their machines.
    Deleted,
    /// They are left behind.
    Abandoned,
}

/// What of an environment's directory is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The journal.
    Journal,
    /// The keys.
    Keys,
    /// Everything.
    Everything,
}

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `deploy`.
    Deploy,
    /// `plan`.
    Plan,
    /// `reset`.
    Reset,
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself.
    Natural,
    /// The program dies after so long.
    Crash(Duration),
    /// The program dies when it reaches this point for the so many-th time.
    CrashAt(FaultPoint, u32),
    /// The program dies after it was given control so many times.
    CrashAfterPolls(u32),
    /// Somebody asks it to stop after so long.
    Interrupt(Duration),
    /// Somebody asks it to stop, and cannot wait: once more after the second duration.
    InterruptTwice(Duration, Duration),
    /// Somebody starts another one after so long.
    Rival(Duration, Command),
    /// Somebody takes its place in the journal after so long.
    Unlocked(Duration),
}

impl Act {
    /// Whether nothing goes wrong, so that the command has no excuse.
    pub fn is_calm(&self) -> bool {
        let undisturbed = matches!(self.ending, Ending::Natural | Ending::Rival(..));
        undisturbed && self.faults.is_empty() && self.roughness == Roughness::default()
    }

    /// Whether the Management may say for a while after the act what a fault had it say.
    pub fn troubles_management(&self) -> bool {
        self.faults
            .iter()
            .any(|fault| matches!(fault.name, FaultKind::ComponentFailure | FaultKind::ManagementNotReady))
    }
}

impl Scenario {
    /// The scenario of a seed; small ones have few machines and short lives.
    pub fn draw(seed: u64, small: bool) -> Self {
        let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed));
        let controllers = if small { 1 } else { draw.up_to(1, 3) as u16 };
        let workers = if small { draw.up_to(0, 1) as u16 } else { draw.up_to(0, 3) as u16 };
        let mut scenario = Self {
            seed,
            controllers,
            controller_zones: draw.zones(),
            worker_zones: draw.zones(),
            spot: draw.percent(25),
            squatter: draw.percent(5),
            acts: Vec::new(),
        };
        let mut nodes = Nodes { controllers, workers };
        scenario.life(&mut draw, &mut nodes, small);
        if !small && draw.percent(12) {
            scenario.life(&mut draw, &mut nodes, small);
        }
        scenario
    }

    /// From nothing to a cluster and back to nothing.
    fn life(&mut self, draw: &mut Draw, nodes: &mut Nodes, small: bool) {
        for _ in 0..draw.up_to(0, if small { 1 } else { 3 }) {
            let act = draw.troubled(Command::Deploy, *nodes);
            // Nobody but a person gets a machine out of this: the machine has to be deleted.
            let is_stuck = act.faults.iter().any(|fault| fault.name == FaultKind::CloudInitError);
            self.acts.push(act);
            if is_stuck {
                self.acts.push(draw.calm(Command::Reset, *nodes));
                break;
            }
        }
        let children = if draw.percent(90) { draw.up_to(1, 2) as u8 } else { 0 };
        self.acts.push(Act { children, ..draw.calm(Command::Deploy, *nodes) });
        if draw.percent(30) {
            self.acts.push(draw.calm(Command::Plan, *nodes));
        }
        if draw.percent(25) {
            self.acts.push(draw.calm(Command::Deploy, *nodes));
        }
        for _ in 0..draw.up_to(0, if small { 1 } else { 2 }) {
            self.change(draw, nodes, small);
        }
        self.teardown(draw, nodes, small, children > 0);
    }

    /// Somebody is refused first, or has lost the records, or the program dies; at last it is gone.
    fn teardown(&mut self, draw: &mut Draw, nodes: &Nodes, small: bool, has_children: bool) {
        if has_children && draw.percent(50) {
            self.acts.push(Act { ending: Ending::Natural, ..draw.calm(Command::Reset, *nodes) });
        }
        let mut loss = draw.percent(20).then(|| draw.loss());
        let is_lost = loss.is_some();
        let mut acts: Vec<Act> = (0..draw.up_to(0, if small { 1 } else { 2 }))
            .map(|_| Act { fate: draw.fate(), ..draw.troubled(Command::Reset, *nodes) })
            .collect();
        // Who has once left them behind cannot have them deleted later.
        let is_abandoned = draw.percent(40) || acts.iter().any(|act| act.fate == Fate::Abandoned);
        let fate = if is_abandoned { Fate::Abandoned } else { Fate::Deleted };
        acts.push(Act { fate, ..draw.calm(Command::Reset, *nodes) });
        for mut act in acts {
            if is_lost {
                act.manner = Manner::Force;
            }
            self.acts.push(Act { loss: loss.take(), ..act });
        }
    }
}

impl Scenario {
    /// Another number of workers, or mischief by others; then the cluster is brought in order.
    fn change(&mut self, draw: &mut Draw, nodes: &mut Nodes, small: bool) {
        let mischief = if draw.percent(40) {
            Some(draw.mischief(*nodes, self.spot))
        } else {
            nodes.workers = draw.up_to(u32::from(nodes.workers > 0), if small { 1 } else { 3 }) as u16;
            None
        };
        let first = self.acts.len();
        if draw.percent(50) {
            let mut act = draw.troubled(Command::Deploy, *nodes);
            // A machine that does not come up again after it was stopped has to be deleted by a person, too.
            act.faults.retain(|fault| !matches!(fault.name, FaultKind::CloudInitError | FaultKind::BootFailure));
            self.acts.push(act);
        }
        self.acts.push(draw.calm(Command::Deploy, *nodes));
        self.acts[first].mischief = mischief;
    }
}

/// The machines that the configuration asks for.
#[derive(Clone, Copy)]
struct Nodes {
    controllers: u16,
    workers: u16,
}

/// The source of a scenario's chance.
struct Draw(ChaCha8Rng);

impl Draw {
    fn up_to(&mut self, from: u32, to: u32) -> u32 {
        from + self.0.next_u32() % (to - from + 1)
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.0.next_u32() % 100 < percent
    }

    fn seconds(&mut self, from: u32, to: u32) -> Duration {
        Duration::from_millis(u64::from(self.up_to(from * 1000, to * 1000)))
    }

    /// An instant of a run: as often in the first half minute, when much happens, as in the rest.
    fn instant(&mut self) -> Duration {
        if self.percent(50) { self.seconds(0, 30) } else { self.seconds(30, 700) }
    }

    fn zones(&mut self) -> Vec<u8> {
        let zones: Vec<u8> = (1..=3).filter(|_| self.percent(60)).collect();
        if zones.is_empty() { vec![1] } else { zones }
    }

    fn calm(&mut self, command: Command, nodes: Nodes) -> Act {
        let ending = match command {
            Command::Deploy | Command::Reset if self.percent(8) => self.rival(),
            _ => Ending::Natural,
        };
        let (rest, chance) = (self.seconds(0, 120), self.0.next_u64());
        let manners = [Manner::Orderly, Manner::Orderly, Manner::Force, Manner::Fast];
        Act {
            mischief: None,
            command,
            workers: nodes.workers,
            ending,
            faults: Vec::new(),
            faults_end_after: None,
            roughness: Roughness::default(),
            rest,
            chance,
            manner: manners[(chance % 4) as usize],
            fate: Fate::Unsaid,
            loss: None,
            children: 0,
        }
    }

    fn fate(&mut self) -> Fate {
        [Fate::Unsaid, Fate::Deleted, Fate::Deleted, Fate::Abandoned][self.up_to(0, 3) as usize]
    }

    fn loss(&mut self) -> Loss {
        [Loss::Journal, Loss::Keys, Loss::Everything][self.up_to(0, 2) as usize]
    }

    fn rival(&mut self) -> Ending {
        let command = if self.percent(70) { Command::Deploy } else { Command::Reset };
        Ending::Rival(self.instant(), command)
    }

    fn troubled(&mut self, command: Command, nodes: Nodes) -> Act {
        let ending = match self.up_to(0, 9) {
            0 | 1 => Ending::Crash(self.instant()),
            2 | 3 => Ending::CrashAt(self.point(), self.up_to(1, if command == Command::Reset { 6 } else { 30 })),
            // A deployment is given control some thousands of times.
            4 | 5 => Ending::CrashAfterPolls(1 << self.up_to(0, 12)),
            6 => Ending::Interrupt(self.instant()),
            7 => Ending::InterruptTwice(self.instant(), self.seconds(0, 10)),
            8 if self.percent(50) => self.rival(),
            8 => Ending::Unlocked(self.instant()),
            _ => Ending::Natural,
        };
        let count = [0, 0, 1, 1, 2, 3][self.up_to(0, 5) as usize];
        let faults = (0..count).map(|_| self.fault(nodes)).collect();
        let percent = [0, 0, 2, 5, 15][self.up_to(0, 4) as usize];
        let at_most = if percent == 0 { 0 } else { self.up_to(1, 8) };
        Act {
            ending: match ending {
                Ending::CrashAfterPolls(polls) => Ending::CrashAfterPolls(polls + self.up_to(0, polls - 1)),
                other => other,
            },
            faults,
            faults_end_after: if self.percent(50) { Some(self.seconds(10, 900)) } else { None },
            roughness: Roughness { percent, at_most },
            rest: self.seconds(0, 900),
            ..self.calm(command, nodes)
        }
    }

    fn point(&mut self) -> FaultPoint {
        [FaultPoint::BeforeEffect, FaultPoint::AfterEffect, FaultPoint::AfterRecord][self.up_to(0, 2) as usize]
    }

    fn fault(&mut self, nodes: Nodes) -> Fault {
        use FaultKind::*;
        const KINDS: [FaultKind; 18] = [
            Capacity,
            Capacity,
            Throttle,
            Throttle,
            OperationFailure,
            OperationFailure,
            ServerError,
            ServerError,
            Quota,
            SlowBoot,
            BootFailure,
            CloudInitError,
            WireguardDown,
            SshRefused,
            SshHang,
            K0sNotReady,
            ComponentFailure,
            ManagementNotReady,
        ];
        let name = KINDS[self.up_to(0, KINDS.len() as u32 - 1) as usize];
        let node = self.node(nodes);
        let target = match name {
            Capacity if self.percent(40) => Some(format!("zone-{}", self.up_to(1, 3))),
            OperationFailure => Some(match self.up_to(0, 3) {
                0 => format!("{node}-nic"),
                1 => format!("{node}-pip"),
                2 => "-vnet".to_owned(),
                _ => node,
            }),
            Throttle | ServerError | Quota | ManagementNotReady => None,
            ComponentFailure => Some("cluster-api-provider-azure".to_owned()),
            _ => Some(node),
        };
        let times = if matches!(name, Throttle | ServerError) { self.up_to(1, 6) } else { self.up_to(1, 3) };
        Fault { name, target, times: Some(times) }
    }

    /// What a cluster can get over: one of three controllers may go, but not one of fewer.
    fn mischief(&mut self, nodes: Nodes, spot: bool) -> Action {
        let machine = self.node(nodes);
        let is_needed = machine.contains("controller") && nodes.controllers < 3;
        match self.up_to(0, 5) {
            0 if !is_needed => Action::DeleteMachine { machine },
            0 | 1 => Action::StopMachine { machine },
            2 => Action::DeallocateMachine { machine },
            3 if spot => Action::EvictMachine { machine },
            3 | 4 => Action::RemoveRule { rule: "AllowSSH".to_owned() },
            _ => Action::StopUnit { machine, unit: "wg-quick@wg0.service".to_owned() },
        }
    }

    fn node(&mut self, nodes: Nodes) -> String {
        let number = self.up_to(1, u32::from(nodes.controllers + nodes.workers));
        match number.checked_sub(u32::from(nodes.controllers)) {
            Some(worker) if worker > 0 => format!("k0s-worker-{worker}"),
            _ => format!("k0s-controller-{number}"),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { controllers, controller_zones, worker_zones, .. } = self;
        let spot = if self.spot { "Spot" } else { "regular" };
        writeln!(
            formatter,
            "  {controllers} controllers in zones {controller_zones:?}, workers in {worker_zones:?}, {spot}"
        )?;
        if self.squatter {
            writeln!(formatter, "  somebody else has the resource group's name at first")?;
        }
        for (number, act) in self.acts.iter().enumerate() {
            writeln!(formatter, "  {}. {act}", number + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Act {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mischief) = &self.mischief {
            write!(formatter, "after {mischief:?}: ")?;
        }
        if let Some(loss) = self.loss {
            write!(formatter, "after a loss of {loss:?}: ")?;
        }
        let manner = match self.command {
            Command::Reset => format!(" ({:?}, children {:?})", self.manner, self.fate),
            _ => String::new(),
        };
        write!(formatter, "{:?}{manner} with {} workers, {:?}", self.command, self.workers, self.ending)?;
        for Fault { name, target, times } in &self.faults {
            let (target, times) = (target.as_deref().unwrap_or("anything"), times.unwrap_or_default());
            write!(formatter, "; {name:?} of {target}, {times} times")?;
        }
        if let (Some(end), false) = (self.faults_end_after, self.faults.is_empty()) {
            write!(formatter, " until {end:?}")?;
        }
        let Roughness { percent, at_most } = self.roughness;
        if at_most > 0 {
            write!(formatter, "; {percent} % of connections in trouble, at most {at_most}")?;
        }
        write!(formatter, "; then {:?} of rest", self.rest)?;
        if self.children > 0 { write!(formatter, ", and {} child clusters", self.children) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_one_scenario_that_ends_in_a_calm_reset() {
        for seed in 0..200 {
            let scenario = Scenario::draw(seed, false);
            assert_eq!(scenario, Scenario::draw(seed, false));
            let last = scenario.acts.last().expect("an act");
            assert!(last.is_calm() && last.command == Command::Reset, "{scenario}");
        }
    }
}
