//! `twin serve`: the twin as a service, for other programs.

use engine::{Clock as _, SystemClock};
use twin::serve::{ServeOptions, serve};

use crate::{arguments::TwinCommand, commands::Context, error::CommandError, signals::Signals};

/// Serves until somebody ends it, which is not an error.
pub(crate) async fn run(context: &Context, command: TwinCommand) -> Result<u8, CommandError> {
    let TwinCommand::Serve(arguments) = command;
    let directory = arguments.data_dir.clone();
    let mut signals = Signals::listen()?;
    let options = ServeOptions {
        data_dir: arguments.data_dir,
        seed: arguments.seed,
        speed: arguments.speed,
        epoch: SystemClock.utc(),
    };
    let serving = serve(options, |endpoints| context.printer.object(endpoints));
    tokio::select! {
        biased;
        _ = signals.next() => Ok(0),
        result = serving => match result {
            Ok(()) => Ok(0),
            Err(error) => {
                Err(CommandError::failed(format!("the twin cannot be served from {}: {error}", directory.display())))
            }
        },
    }
}
