//! The command `applock`: a program under a lock, and who holds which lock.
//!
//! | file | what lives there |
//! |---|---|
//! | `args` | the command line, and what its help teaches |
//! | `input` | its values, judged before anything is done |
//! | `exit` | the exit codes, and the line that goes with them |
//! | `output` | what is written, and to whom |
//! | `run/` | a command under a lock: two processes that look after it |
//! | `info`, `ls`, `wait`, `watch`, `release`, `check` | one file for each of the small commands |
//! | `doctor/` | whether a store is fit for locks |
//! | `view` | how people are shown holders, runs, lengths and tables |

mod args;
mod check;
mod doctor;
mod exit;
mod info;
mod input;
mod log;
mod ls;
mod output;
mod release;
#[cfg(unix)]
mod run;
mod view;
mod wait;
mod watch;

use clap::CommandFactory as _;

use args::{Cli, Command, Parsed, StoreArgs};
use exit::Failure;

fn main() {
    let code = match args::parse() {
        Ok(Parsed::Command(cli)) => carry_out(&cli),
        Ok(Parsed::Text(text)) => output::print(text).map(|()| exit::OK),
        Ok(Parsed::Usage(text)) => {
            output::complain(text);
            Ok(exit::USAGE)
        }
        Err(failure) => Err(failure),
    };
    let code = code.unwrap_or_else(|failure| {
        output::say(&failure.text);
        failure.code
    });
    std::process::exit(i32::from(code));
}

fn carry_out(cli: &Cli) -> Result<u8, Failure> {
    let store = &cli.store;
    match &cli.command {
        Command::Run(args) => run_under_lock(args, store),
        Command::Ls(args) => ls::ls(args, store),
        Command::Watch(args) => watch::watch(args, store),
        Command::Doctor(args) => doctor::doctor(args, store),
        Command::Info(args) => info::info(args, store),
        Command::Wait(args) => wait::wait(args, store),
        Command::Release(args) => release::release(args, store),
        Command::Check(args) => check::check(args, store),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "applock", &mut script);
            output::print(String::from_utf8_lossy(&script))?;
            Ok(exit::OK)
        }
    }
}

#[cfg(unix)]
fn run_under_lock(args: &args::RunArgs, store: &StoreArgs) -> Result<u8, Failure> {
    run::run(args, store)
}

#[cfg(not(unix))]
fn run_under_lock(_: &args::RunArgs, _: &StoreArgs) -> Result<u8, Failure> {
    Err(Failure::new(
        exit::FAILED,
        "this system has no process groups, so no command can be run under a lock here",
    ))
}
