//! Child processes of the benchmark: this program again, in a role.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context as _;
use anyhow::bail;

use crate::options::Role;
use crate::protocol::Answer;
use crate::protocol::Doors;
use crate::protocol::Order;
use crate::protocol::Sent;
use crate::protocol::Tally;

/// A child that takes orders. Dropping it ends it.
pub(crate) struct Worker {
    role: Role,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Where it listens, if it does.
    pub(crate) doors: Doors,
}

impl Worker {
    /// Starts this program in `role` and waits until it takes orders.
    pub(crate) fn start(role: Role, arguments: &[&str]) -> anyhow::Result<Worker> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--role", role.name()]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let orders = child.stdin.take().context("a pipe was asked for")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe was asked for")?);
        let mut worker = Worker { role, child, orders, answers, doors: Doors::default() };
        match worker.hear()? {
            Answer::Ready(doors) => worker.doors = doors,
            other => bail!("{} says {other:?}", role.name()),
        }
        Ok(worker)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order that has no answer but its end.
    pub(crate) fn tell(&mut self, order: &Order) -> anyhow::Result<()> {
        match self.ask(order)? {
            Answer::Done => Ok(()),
            other => bail!("{} says {other:?}", self.role.name()),
        }
    }

    /// Asks the receiver what has arrived.
    pub(crate) fn tally(&mut self) -> anyhow::Result<Tally> {
        match self.ask(&Order::Tally)? {
            Answer::Tally(tally) => Ok(tally),
            other => bail!("{} says {other:?}", self.role.name()),
        }
    }

    /// Gives an order that is about sending.
    pub(crate) fn send(&mut self, order: &Order) -> anyhow::Result<Sent> {
        match self.ask(order)? {
            Answer::Sent(sent) => Ok(sent),
            other => bail!("{} says {other:?}", self.role.name()),
        }
    }

    fn ask(&mut self, order: &Order) -> anyhow::Result<Answer> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line)?;
        self.hear()
    }

    fn hear(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            bail!("{} has ended", self.role.name());
        }
        match serde_json::from_str(&line)? {
            Answer::Failed(why) => bail!("{}: {why}", self.role.name()),
            answer => Ok(answer),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
