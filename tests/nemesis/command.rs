//! Running other programs to their end without holding up the runtime.

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Runs to the end; what it wrote, or what it complained of.
pub(crate) async fn run(mut command: Command) -> Result<String, String> {
    let done = tokio::task::spawn_blocking(move || {
        let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
    });
    done.await.expect("running a command does not panic")
}

/// Whether a program of this name is on the path.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

/// A program run as the user `postgres` where this process is root, since PostgreSQL
/// refuses to be.
pub(crate) fn unprivileged(program: &Path) -> Command {
    let id = Command::new("id").arg("-u").output().expect("id is there");
    let mut command = if id.stdout.trim_ascii() == b"0" {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    command
}

/// A shell that runs a script once this process has ended, however it ended.
pub(crate) struct Watchdog {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// `command` is a shell that is still to be given its script; `arguments` are `$1`, ...
    pub(crate) fn start(mut shell: Command, script: &str, arguments: &[&Path]) -> Watchdog {
        let script = format!("trap '' INT TERM HUP; cat >/dev/null; {script}");
        shell.args(["-c", &script, "sh"]).args(arguments).stdin(Stdio::piped());
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = shell.spawn().expect("a shell is there");
        let pipe = child.stdin.take();
        Watchdog { child, pipe }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // What it leaves behind is in a temporary folder.
        let _ = self.child.wait();
    }
}
