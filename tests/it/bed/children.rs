//! Children that die with the test process, even when it is killed.
//!
//! The parent-death signal is sent when the *thread* that forked ends, and tests run on threads
//! that end. So one thread that never ends forks everything here.

use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

type Order = (Command, Sender<std::io::Result<Child>>);

/// A command that will be killed when the test process is gone. `setpriv` sets the signal, because
/// doing so between fork and exec would need `unsafe` here.
pub fn dying(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a command made by [`dying`].
pub fn spawn(command: Command) -> std::io::Result<Child> {
    static KEEPER: OnceLock<Sender<Order>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                // The asker may have panicked meanwhile; then nobody wants the child.
                if let Err(unwanted) = answer.send(command.spawn()) {
                    let _ = unwanted.0.map(|mut child| child.kill());
                }
            }
        });
        orders
    });
    let (answer, result) = channel();
    keeper.send((command, answer)).expect("the keeper lives as long as the process");
    result.recv().expect("the keeper answers every order")
}
