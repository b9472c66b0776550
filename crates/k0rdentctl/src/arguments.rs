//! The command line: every command and option, their help, and how it is laid out.

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use deploy::topology::ClusterId;

/// Narrower, help is unreadable; wider, lines are too long to follow.
const WIDTHS: std::ops::RangeInclusive<usize> = 60..=200;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// The commands in the order and groups of the help.
const GROUPS: &[(&str, &[&str])] = &[
    ("Start", &["init", "config"]),
    ("Try it out", &["rehearse", "twin"]),
    ("Run", &["plan", "deploy", "replace", "uninstall", "reset", "unlock"]),
    ("Look", &["check", "status", "events", "state", "leftovers", "history"]),
    ("Cluster", &["ssh", "kubeconfig", "exec"]),
    ("Other", &["version", "completions", "help"]),
];

/// What to type, for each command.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("", &["k0rdentctl init --template minimal > k0rdent.yaml", "k0rdentctl rehearse", "k0rdentctl deploy"]),
    ("init", &["k0rdentctl init --template production > k0rdent.yaml"]),
    ("config", &["k0rdentctl config validate"]),
    ("config validate", &["k0rdentctl config validate --config my.yaml"]),
    ("config show", &["k0rdentctl config show --output json"]),
    ("check", &["k0rdentctl check", "k0rdentctl check --output json"]),
    ("plan", &["k0rdentctl plan", "k0rdentctl plan --output json --detailed-exitcode"]),
    ("deploy", &["k0rdentctl deploy", "k0rdentctl deploy -y --until machines"]),
    ("uninstall", &["k0rdentctl uninstall k0rdent"]),
    ("uninstall k0rdent", &["k0rdentctl uninstall k0rdent -y", "k0rdentctl uninstall k0rdent --with-children"]),
    ("uninstall k0s", &["k0rdentctl uninstall k0s"]),
    (
        "reset",
        &[
            "k0rdentctl reset",
            "k0rdentctl reset --fast --no-wait -y",
            "k0rdentctl reset --force --cluster-id k0rdent-abcd1234",
        ],
    ),
    ("leftovers", &["k0rdentctl leftovers", "k0rdentctl leftovers --cluster-id k0rdent-abcd1234 --output json"]),
    ("status", &["k0rdentctl status --output json", "k0rdentctl status --check"]),
    ("state", &["k0rdentctl state doctor"]),
    ("state doctor", &["k0rdentctl state doctor"]),
    ("state export", &["k0rdentctl state export"]),
    ("history", &["k0rdentctl history", "k0rdentctl history --output json"]),
    ("unlock", &["k0rdentctl unlock"]),
    ("events", &["k0rdentctl events --follow"]),
    ("replace", &["k0rdentctl replace k0s-worker-2", "k0rdentctl replace k0s-controller-1 --start-anew"]),
    ("ssh", &["k0rdentctl ssh k0s-controller-1", "k0rdentctl ssh k0s-worker-1 -- uptime"]),
    ("kubeconfig", &["k0rdentctl kubeconfig"]),
    ("exec", &["k0rdentctl exec -- kubectl get nodes"]),
    (
        "rehearse",
        &["k0rdentctl rehearse --config examples/production.yaml", "k0rdentctl rehearse --faults 42 --speed 60"],
    ),
    ("twin", &["k0rdentctl twin serve --data-dir ./twin"]),
    ("twin serve", &["k0rdentctl twin serve --data-dir ./twin --speed 60", "k0rdentctl --twin ./twin deploy -y"]),
    ("version", &["k0rdentctl version --output json"]),
    ("completions", &["k0rdentctl completions bash > k0rdentctl.bash"]),
];

/// From a YAML file to a k0rdent management cluster on Azure, and back to nothing.
#[derive(Debug, Parser)]
#[command(name = "k0rdentctl", version, styles = STYLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The configuration [default: ./k0rdent.yaml, then ./config/k0rdent.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the environment's files live
    #[arg(long, global = true, value_name = "DIR", default_value = "./.k0rdent")]
    pub(crate) home: PathBuf,
    /// How results are printed
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Talk to the twin served from this directory instead of Azure
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) twin: Option<PathBuf>,
    /// Verbose output; -vv for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Only results, errors, and what is about to be confirmed or deleted
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value_t)]
    pub(crate) color: ColorChoice,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// A phase of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Phase {
    /// Keys and files.
    Prepare,
    /// What the machines share in Azure.
    #[value(alias = "network")]
    Infrastructure,
    /// The machines.
    Machines,
    /// The encrypted network between them.
    Mesh,
    /// Kubernetes.
    K0s,
    /// The management cluster.
    K0rdent,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a commented starter configuration
    Init {
        /// Which template
        #[arg(long, value_name = "NAME", default_value = "minimal", value_parser = templates())]
        template: String,
    },
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check the prerequisites of deploy
    Check,
    /// Show what deploy would do, and touch nothing
    ///
    /// Names what would be created, changed and deleted, what it costs, what is opened to whom, and how long it takes.
    Plan {
        /// Exit with 6 if there is anything to do, as for terraform's 2 (which means a usage error here)
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Create the cluster, or continue where it was
    Deploy(Deploy),
    /// Delete a machine and make it anew
    ///
    /// Moves its workloads away and takes it out of etcd where the cluster answers; then makes it anew and lets it join
    /// again. Its addresses stay.
    Replace(Replace),
    /// Take k0rdent or k0s off the cluster again
    #[command(subcommand)]
    Uninstall(Uninstall),
    /// Delete the cluster and prove that it is gone
    Reset(Reset),
    /// Show the cluster and what to do next
    Status {
        /// Compare the recorded state with the live resources
        #[arg(long)]
        check: bool,
    },
    /// Check or export the environment's records
    #[command(subcommand)]
    State(StateCommand),
    /// List the deployments that were reset
    History,
    /// Release the lock of an unreachable run
    Unlock(Confirmation),
    /// Show what happened
    Events {
        /// Keep showing what happens
        #[arg(short, long)]
        follow: bool,
    },
    /// Show what clusters have left in Azure
    ///
    /// Looks by tag and by name in the whole subscription. Says of each cluster whether it is alive, and known here; the
    /// exit code is 5 if anything remains of one that is not, or is there of the one that is asked for.
    Leftovers(Leftovers),
    /// Log in to a machine, or run a command there
    Ssh {
        /// The machine, as in k0s-controller-1
        node: String,
        /// The command; without it, a shell
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Write the kubeconfig and print its path
    Kubeconfig,
    /// Run a program with a way into the cluster
    ///
    /// Opens the way into the cluster, sets KUBECONFIG, runs the program, and closes it again. The exit code is the
    /// program's own.
    Exec {
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Deploy and reset in memory; needs no account
    ///
    /// Runs the whole road of this configuration against a twin of the cloud in memory, in simulated time, and reports
    /// how long it would take and why.
    Rehearse(Rehearse),
    /// Serve a twin of the cloud to other programs
    #[command(subcommand)]
    Twin(TwinCommand),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What to do with the configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check it and report every problem
    Validate,
    /// Print it complete with all defaults
    Show,
}

/// Before something that costs or destroys.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Confirmation {
    /// Skip the confirmation
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// How to reset.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct UninstallK0rdent {
    /// Do not ask first.
    #[command(flatten)]
    pub(crate) confirmation: Confirmation,
    /// Delete child clusters with their machines first
    #[arg(long)]
    pub(crate) with_children: bool,
}

/// What to uninstall.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Uninstall {
    /// Remove k0rdent and all that it installed; Kubernetes stays
    K0rdent(UninstallK0rdent),
    /// Remove Kubernetes; the machines stay
    K0s(Confirmation),
}

/// How to deploy.
#[derive(Clone, Debug, Args)]
pub(crate) struct Deploy {
    /// Do not ask first.
    #[command(flatten)]
    pub(crate) confirmation: Confirmation,
    /// As --until k0s. Hidden: `reset --no-wait` means something else by the same words.
    #[arg(long, conflicts_with = "until", hide = true)]
    pub(crate) no_wait: bool,
    /// Stop after this phase
    #[arg(long, value_name = "PHASE", value_enum)]
    pub(crate) until: Option<Phase>,
    /// Make generated files anew even when they are there: all, or those whose path has this part
    #[arg(long, value_name = "PART", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) force_regenerate: Option<String>,
    /// Begin an empty cluster where the control plane is lost, and give up what the old one knew
    #[arg(long)]
    pub(crate) start_anew: bool,
    /// Set by `replace`.
    #[arg(skip)]
    pub(crate) replace: Option<String>,
}

/// Which machine to make anew.
#[derive(Clone, Debug, Args)]
pub(crate) struct Replace {
    /// The machine, as in k0s-worker-1
    pub(crate) node: String,
    /// Begin an empty cluster if it is the only controller
    #[arg(long)]
    pub(crate) start_anew: bool,
    /// Do not ask first.
    #[command(flatten)]
    pub(crate) confirmation: Confirmation,
}

impl Replace {
    /// A deployment that does it on its way.
    pub(crate) fn deploy(self) -> Deploy {
        let Self { node, start_anew, confirmation } = self;
        let (no_wait, until, force_regenerate) = Default::default();
        Deploy { confirmation, no_wait, until, force_regenerate, start_anew, replace: Some(node) }
    }
}

/// How to reset.
#[derive(Clone, Debug, Args)]
pub(crate) struct Reset {
    /// Do not ask first.
    #[command(flatten)]
    pub(crate) confirmation: Confirmation,
    /// Delete whatever is ours, even if nothing works any more: no SSH, no API server, no records
    #[arg(long, conflicts_with = "fast")]
    pub(crate) force: bool,
    /// The cluster, where its records are lost or elsewhere
    #[arg(long, value_name = "ID", requires = "force")]
    pub(crate) cluster_id: Option<ClusterId>,
    /// Delete the resource group in one request; ask the cluster for its children alone
    #[arg(long)]
    pub(crate) fast: bool,
    /// Delete child clusters with their machines first
    #[arg(long)]
    pub(crate) with_children: bool,
    /// Leave child clusters behind, or go on where nobody can say whether there are any
    #[arg(long, conflicts_with = "with_children")]
    pub(crate) abandon_children: bool,
    /// Return as soon as Azure has accepted the deletion
    #[arg(long, requires = "fast")]
    pub(crate) no_wait: bool,
    /// Where to look.
    #[command(flatten)]
    pub(crate) place: Place,
}

/// What to look for.
#[derive(Clone, Debug, Args)]
pub(crate) struct Leftovers {
    /// Only what is left of this cluster
    #[arg(long, value_name = "ID")]
    pub(crate) cluster_id: Option<ClusterId>,
    /// Where to look.
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Where clusters are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// The Azure subscription, where no records name it [default: as the configuration or the login says]
    #[arg(long, value_name = "ID")]
    pub(crate) subscription_id: Option<String>,
}

/// How to rehearse.
#[derive(Clone, Debug, Args)]
pub(crate) struct Rehearse {
    /// Let things go wrong, drawn from this seed
    #[arg(long, value_name = "SEED")]
    pub(crate) faults: Option<u64>,
    /// Simulated seconds for each real second, to watch [default: as fast as possible]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) speed: Option<f64>,
    /// Seed of the world: the same seed is the same run
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) seed: u64,
    /// Keep the files in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

/// What to do with the environment's records.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Check the journal from its first record to its last
    Doctor,
    /// Write deployment-state.yaml and deployment-events.yaml
    Export,
}

/// What to do with a twin.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum TwinCommand {
    /// Serve a twin until interrupted
    Serve(Serve),
}

/// How to serve a twin.
#[derive(Clone, Debug, Args)]
pub(crate) struct Serve {
    /// Where the twin puts its addresses and certificate
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Simulated seconds for each real second
    #[arg(long, value_name = "N", default_value_t = 60.0, value_parser = positive)]
    pub(crate) speed: f64,
    /// Seed of the world
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) seed: u64,
}

/// The command line for a terminal of that many columns.
pub(crate) fn command(width: usize) -> clap::Command {
    let command = Arguments::command().term_width(width.clamp(*WIDTHS.start(), *WIDTHS.end()));
    let template = overview(&command);
    with_examples(command.help_template(template), "")
}

/// Reads a command line, the program's name first. An error is clap's: print it and exit with its code.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
    width: usize,
) -> Result<Arguments, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let mut command = command(width).color(color(&arguments));
    let matches = command.try_get_matches_from_mut(arguments).map_err(with_tip)?;
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// What people type who come from other tools, and what they mean.
const TIPS: &[(&[&str], &str)] = &[
    (&["destroy", "delete", "down", "rm", "remove", "teardown", "clean"], "to delete the cluster: k0rdentctl reset"),
    (&["up", "apply", "create", "install", "start", "run"], "to create the cluster, or to continue: k0rdentctl deploy"),
    (
        &["doctor", "preflight"],
        "before a deployment: k0rdentctl check; the environment's records: k0rdentctl state doctor",
    ),
    (&["log", "logs"], "what happened, and what happens: k0rdentctl events --follow"),
    (&["validate", "lint"], "to check the configuration: k0rdentctl config validate"),
    (&["completion"], "completions for a shell: k0rdentctl completions bash"),
    (
        &["upgrade", "update", "scale", "resize"],
        "edit the configuration, see what would change with k0rdentctl plan, then k0rdentctl deploy",
    ),
    (&["get", "describe", "kubectl"], "to ask the cluster: k0rdentctl exec -- kubectl get nodes"),
    (&["destroy-all", "cleanup", "gc"], "what clusters have left in Azure: k0rdentctl leftovers"),
    (&["diff", "preview", "dry-run"], "what deploy would do: k0rdentctl plan"),
    (&["test", "simulate"], "to try it without an account: k0rdentctl rehearse"),
    (&["connect", "shell", "login"], "to log in to a machine: k0rdentctl ssh k0s-controller-1"),
];

/// A tip for a command that there is not, where clap's own, which goes by letters, would mislead.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(said)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let tip = TIPS.iter().find(|(words, _)| words.contains(&said.as_str())).map(|(_, tip)| *tip);
    if let Some(tip) = tip {
        let _letters = error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// Colours of help and errors, which are printed before anything is parsed.
fn color(arguments: &[OsString]) -> ColorChoice {
    let words = || arguments.iter().skip(1).filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let joined = words().find_map(|word| word.strip_prefix("--color="));
    let apart = words().zip(words().skip(1)).find_map(|(word, next)| (word == "--color").then_some(next));
    joined.or(apart).and_then(|when| ColorChoice::from_str(when, true).ok()).unwrap_or_default()
}

/// Clap lists all commands under one heading; this lists them in groups.
fn overview(command: &clap::Command) -> String {
    let (header, literal) = (STYLES.get_header(), STYLES.get_literal());
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    for (group, names) in GROUPS {
        let _ = write!(text, "\n{header}{group}:{header:#}\n");
        for name in *names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string);
            let about = about.unwrap_or_else(|| "Show this, or the help of a command".to_owned());
            let _ = writeln!(text, "  {literal}{name:<11}{literal:#}  {about}");
        }
    }
    let _ = write!(text, "\n{header}Global options:{header:#}\n{{options}}{{after-help}}");
    text
}

fn with_examples(mut command: clap::Command, path: &str) -> clap::Command {
    if let Some((_, lines)) = EXAMPLES.iter().find(|(known, _)| *known == path) {
        let header = STYLES.get_header();
        let heading = if lines.len() == 1 { "Example" } else { "Examples" };
        command = command.after_help(format!("{header}{heading}:{header:#}\n  {}", lines.join("\n  ")));
    }
    let names: Vec<_> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| {
        let path = format!("{path} {name}");
        command.mut_subcommand(name, |sub| with_examples(sub, path.trim_start()))
    })
}

fn templates() -> PossibleValuesParser {
    let template = |&(name, text): &(&'static str, &'static str)| {
        // The first line of each says what it is for.
        let purpose = text.lines().next().unwrap_or_default().trim_start_matches("# ").trim_end_matches('.');
        PossibleValue::new(name).help(purpose)
    };
    deploy::config::TEMPLATES.iter().map(template).collect::<Vec<_>>().into()
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command with its path, the top first.
    fn all(command: clap::Command) -> Vec<clap::Command> {
        fn collect(command: &clap::Command, found: &mut Vec<clap::Command>) {
            found.push(command.clone());
            command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(|sub| collect(sub, found));
        }
        let mut built = command;
        built.build();
        let mut found = Vec::new();
        collect(&built, &mut found);
        found
    }

    fn parsed(line: &str) -> Result<Arguments, clap::Error> {
        parse(line.split_whitespace(), 80)
    }

    #[test]
    fn the_tree_is_consistent() {
        command(80).debug_assert();
    }

    #[test]
    fn help_fits_its_width_and_has_an_example() {
        for width in [60, 80, 120, 200] {
            for mut command in all(command(width)) {
                for help in [command.render_help().to_string(), command.render_long_help().to_string()] {
                    let longest = help.lines().map(|line| line.chars().count()).max().unwrap_or_default();
                    assert!(longest <= width, "{} is {longest} wide, not {width}:\n{help}", command.get_name());
                    assert!(help.contains("Example"), "{} has no example:\n{help}", command.get_name());
                }
            }
        }
    }

    #[test]
    fn widths_are_clamped() {
        assert_eq!(command(10).render_help().to_string(), command(60).render_help().to_string());
        assert_eq!(command(999).render_help().to_string(), command(200).render_help().to_string());
    }

    #[test]
    fn every_command_is_in_one_group_and_every_example_parses() {
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let mut known: Vec<_> = Arguments::command().get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        known.push("help".to_owned());
        grouped.sort_unstable();
        known.sort_unstable();
        assert_eq!(grouped, known);
        for line in EXAMPLES.iter().flat_map(|(_, lines)| *lines) {
            let line = line.split(" > ").next().unwrap_or_default();
            assert!(parsed(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn words_of_other_tools_lead_to_ours() {
        let words = "destroy delete down rm up create apply doctor logs validate completion upgrade scale";
        for word in words.split_whitespace() {
            let Err(error) = parsed(&format!("k0rdentctl {word}")) else { panic!("{word} is a command") };
            let text = error.to_string();
            assert!(text.contains("tip: ") && !text.contains("'history'"), "{word}: {text}");
        }
        let text = parsed("k0rdentctl destroy").map(|_| ()).expect_err("no command").to_string();
        assert!(text.contains("tip: to delete the cluster: k0rdentctl reset"), "{text}");
        // What is only misspelt is clap's to guess.
        let text = parsed("k0rdentctl deplyo").map(|_| ()).expect_err("no command").to_string();
        assert!(text.contains("'deploy'"), "{text}");
    }

    #[test]
    fn help_is_coloured_and_grouped() {
        let help = command(80).render_help();
        assert!(help.ansi().to_string().contains("\u{1b}["));
        insta::assert_snapshot!(help, @"
        From a YAML file to a k0rdent management cluster on Azure, and back to nothing

        Usage: k0rdentctl [OPTIONS] <COMMAND>

        Start:
          init         Print a commented starter configuration
          config       Check or show the configuration

        Try it out:
          rehearse     Deploy and reset in memory; needs no account
          twin         Serve a twin of the cloud to other programs

        Run:
          plan         Show what deploy would do, and touch nothing
          deploy       Create the cluster, or continue where it was
          replace      Delete a machine and make it anew
          uninstall    Take k0rdent or k0s off the cluster again
          reset        Delete the cluster and prove that it is gone
          unlock       Release the lock of an unreachable run

        Look:
          check        Check the prerequisites of deploy
          status       Show the cluster and what to do next
          events       Show what happened
          state        Check or export the environment's records
          leftovers    Show what clusters have left in Azure
          history      List the deployments that were reset

        Cluster:
          ssh          Log in to a machine, or run a command there
          kubeconfig   Write the kubeconfig and print its path
          exec         Run a program with a way into the cluster

        Other:
          version      Print the version
          completions  Print a completion script for a shell
          help         Show this, or the help of a command

        Global options:
              --config <FILE>    The configuration [default: ./k0rdent.yaml, then
                                 ./config/k0rdent.yaml]
              --home <DIR>       Where the environment's files live [default:
                                 ./.k0rdent]
              --output <FORMAT>  How results are printed [default: text] [possible
                                 values: text, json]
              --twin <DIR>       Talk to the twin served from this directory instead of
                                 Azure
          -v, --verbose...       Verbose output; -vv for everything
          -q, --quiet            Only results, errors, and what is about to be confirmed
                                 or deleted
              --color <WHEN>     When to use colours [default: auto] [possible values:
                                 auto, always, never]
          -h, --help             Print help (see more with '--help')
          -V, --version          Print version

        Examples:
          k0rdentctl init --template minimal > k0rdent.yaml
          k0rdentctl rehearse
          k0rdentctl deploy
        ");
    }

    #[test]
    fn a_command_shows_its_own_options_apart() {
        let mut command = all(command(80)).into_iter().find(|command| command.get_name() == "deploy").expect("deploy");
        insta::assert_snapshot!(command.render_help(), @"
        Create the cluster, or continue where it was

        Usage: k0rdentctl deploy [OPTIONS]

        Options:
          -y, --yes
                  Skip the confirmation
              --until <PHASE>
                  Stop after this phase [possible values: prepare, infrastructure,
                  machines, mesh, k0s, k0rdent]
              --force-regenerate[=<PART>]
                  Make generated files anew even when they are there: all, or those
                  whose path has this part
              --start-anew
                  Begin an empty cluster where the control plane is lost, and give up
                  what the old one knew
          -h, --help
                  Print help (see more with '--help')

        Global options:
              --config <FILE>    The configuration [default: ./k0rdent.yaml, then
                                 ./config/k0rdent.yaml]
              --home <DIR>       Where the environment's files live [default:
                                 ./.k0rdent]
              --output <FORMAT>  How results are printed [default: text] [possible
                                 values: text, json]
              --twin <DIR>       Talk to the twin served from this directory instead of
                                 Azure
          -v, --verbose...       Verbose output; -vv for everything
          -q, --quiet            Only results, errors, and what is about to be confirmed
                                 or deleted
              --color <WHEN>     When to use colours [default: auto] [possible values:
                                 auto, always, never]

        Examples:
          k0rdentctl deploy
          k0rdentctl deploy -y --until machines
        ");
    }

    #[test]
    fn arguments_arrive() {
        let arguments = parsed("k0rdentctl --twin ./twin ssh k0s-worker-1 -- ls -la").expect("parses");
        assert_eq!(arguments.global.twin, Some(PathBuf::from("./twin")));
        assert!(
            matches!(arguments.command, Command::Ssh { node, command } if node == "k0s-worker-1" && command == ["ls", "-la"])
        );
        let arguments = parsed("k0rdentctl exec kubectl get nodes -o wide -vv --output json").expect("parses");
        assert_eq!(arguments.global.output, Output::Text);
        assert!(matches!(arguments.command, Command::Exec { command } if command.len() == 8));
        let arguments = parsed("k0rdentctl deploy -y --until mesh -vv --output json --color never").expect("parses");
        assert_eq!((arguments.global.verbose, arguments.global.output), (2, Output::Json));
        assert!(
            matches!(arguments.command, Command::Deploy(deploy) if deploy.until == Some(Phase::Mesh) && deploy.confirmation.yes)
        );
        for wrong in [
            "k0rdentctl",
            "k0rdentctl deploy -q -v",
            "k0rdentctl rehearse --speed 0",
            "k0rdentctl exec",
            "k0rdentctl init --template huge",
        ] {
            assert_eq!(parsed(wrong).map(|_| ()).map_err(|error| error.exit_code()), Err(2), "{wrong}");
        }
    }

    #[test]
    fn the_colour_option_holds_for_help_too() {
        let choice = |line: &str| color(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(choice("k0rdentctl --color never help"), ColorChoice::Never);
        assert_eq!(choice("k0rdentctl help --color=always"), ColorChoice::Always);
        assert_eq!(choice("k0rdentctl exec -- ls --color=always"), ColorChoice::Auto);
    }
}
