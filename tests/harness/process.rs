//! The real binary as a child process: started, watched, killed.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::eventually::eventually;

/// A running `hookward`; killed when dropped. What it wrote is shown when the test fails.
pub(crate) struct Process {
    child: Child,
    written: Arc<Mutex<String>>,
    /// Each ends with its stream.
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `hookward` with these arguments and environment, and nothing of the
    /// environment of the tests.
    pub(crate) fn start(
        arguments: &[String],
        environment: &[(String, String)],
        folder: &std::path::Path,
    ) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookward"))
            .args(arguments)
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built with the tests");
        let written = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            collect(child.stdout.take().expect("it is piped"), &written),
            collect(child.stderr.take().expect("it is piped"), &written),
        ];
        Process { child, written, readers }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far, on stdout and stderr.
    pub(crate) fn written(&self) -> String {
        self.written.lock().expect("the readers do not panic").clone()
    }

    /// Waits for a line that starts with `prefix`, and gives the rest of it. Panics
    /// when the process ends instead.
    pub(crate) async fn says(&mut self, prefix: &str) -> String {
        eventually(&format!("{prefix:?} on stdout"), async || {
            let written = self.written();
            let line = written.split_inclusive('\n').find_map(|line| line.strip_prefix(prefix));
            if let Some(line) = line.and_then(|line| line.strip_suffix('\n')) {
                return Some(line.to_owned());
            }
            let ended = self.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "hookward ended with {ended:?}");
            None
        })
        .await
    }

    /// SIGKILL: it ends at once, whatever it is doing.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Ends it, if it runs, and reads what it has written to the end.
    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            reader.join().expect("the readers do not panic");
        }
    }

    /// SIGTERM: the request to end in good order.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// SIGHUP: the request to look at its settings.
    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    /// SIGSTOP: a frozen process.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// SIGCONT: goes on as if no time had passed.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// Waits for its end, and until everything that it wrote has been read.
    pub(crate) async fn ends(&mut self) -> ExitStatus {
        eventually("the end of hookward and of its output", async || {
            let ended = self.child.try_wait().expect("it is our child");
            ended.filter(|_| self.readers.iter().all(JoinHandle::is_finished))
        })
        .await
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill is there").success(), "the process is there");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- hookward {} wrote:\n{}", self.child.id(), self.written());
        }
    }
}

fn collect(stream: impl Read + Send + 'static, written: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let written = Arc::clone(written);
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { return };
            let mut written = written.lock().expect("the readers do not panic");
            written.push_str(&String::from_utf8_lossy(&line));
            written.push('\n');
        }
    })
}
