//! One guest under test: a configuration, a script for the guest, and what came out.
//!
//! The guest's script is `/test/run`, appended to the cached initramfs. It writes to the virtio console, where a
//! kilobyte costs one exit, and reads what the test tells it from the serial port. Sections of its output are framed
//! by `@@BEGIN name` and `@@END name status` lines, so that one boot can answer many questions.

mod outcome;

use self::outcome::sections;
use crate::cpio::Cpio;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

pub use self::outcome::{Outcome, Section};

/// Shell functions every script starts with.
const PRELUDE: &str = r#"#!/bin/sh
# Output goes to the virtio console; the serial port is for the kernel and for orders from the test.
exec >/dev/hvc0 2>&1
echo "the script begins"
stty raw -echo </dev/ttyS0 2>/dev/null
section() { name=$1; shift; echo "@@BEGIN $name"; ( "$@" ); status=$?; echo; echo "@@END $name $status"; return $status; }
step() { echo "@@STEP $1"; read -r order </dev/ttyS0; }
failed() { echo "@@FAILED $*"; }
# To list the media errors of a device, cxl-cli reads what the kernel says of each event that it can trace, thousands of files
# and ten seconds under emulation: from here on it finds those of CXL alone.
few_events() {
  [ -e /tmp/events ] && return
  events=/sys/kernel/tracing/events
  mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
  mkdir -p /tmp/events/cxl
  cp $events/header_* /tmp/events && mount --bind $events/cxl /tmp/events/cxl && mount --rbind /tmp/events $events
}
# All that cxl-cli has to say.
picture() { few_events; cxl list -vvv 2>/dev/null; }
"#;

/// A kernel and the initramfs that fits it.
#[derive(Debug, Clone)]
pub struct System {
    /// What the test report calls it, for instance `6.12`.
    pub name: String,
    /// An unmodified bzImage.
    pub kernel: PathBuf,
    /// The cached test initramfs with that kernel's modules.
    pub initrd: PathBuf,
}

/// What every test needs to start guests.
#[derive(Debug, Clone)]
pub struct Lab {
    /// The `memu-vmm` under test.
    pub vmm: PathBuf,
    /// The `memu-ctl` that goes with it.
    pub ctl: PathBuf,
    /// An empty directory for this test's files.
    pub work: PathBuf,
    /// Stock guest kernels, oldest first.
    pub systems: Vec<System>,
    /// The kernel with all CXL drivers, if it is there.
    pub own: Option<System>,
    /// Print what guests print while they run.
    pub show: bool,
    /// A disk with CUDA programs of other people, and the Python that some of them need.
    pub clients: Option<PathBuf>,
}

/// How long a guest may take from its start, or from the last step that it came to, to the line a test waits for;
/// generous, since a guest under emulation on a busy machine is slow and a test must not fail for that.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// How long a guest may take from start to its first line on the virtio console, or to its end: several times what it
/// takes under emulation.
const BOOT_DEADLINE: Duration = Duration::from_secs(150);

/// A guest about to start.
#[derive(Debug)]
pub struct Machine<'a> {
    lab: &'a Lab,
    system: &'a System,
    name: String,
    config: String,
    cmdline: String,
    script: String,
    files: Vec<(&'static str, &'static str)>,
    show: bool,
}

impl<'a> Machine<'a> {
    /// A guest named `name` (its files are `work/name.*`) whose hardware is `config` (TOML without boot and console).
    pub fn new(lab: &'a Lab, system: &'a System, name: &str, config: &str) -> Self {
        Self {
            lab,
            system,
            name: name.into(),
            config: config.into(),
            cmdline: String::new(),
            script: String::new(),
            files: Vec::new(),
            show: lab.show,
        }
    }

    /// A file that the script finds in `/test`.
    #[must_use]
    pub fn with(mut self, name: &'static str, text: &'static str) -> Self {
        self.files.push((name, text));
        self
    }

    /// The body of `/test/run`.
    #[must_use]
    pub fn script(mut self, script: &str) -> Self {
        self.script = script.into();
        self
    }

    /// Words to add to the kernel command line.
    #[must_use]
    pub fn cmdline(mut self, words: &str) -> Self {
        self.cmdline = words.into();
        self
    }

    /// Prints what the guest prints while it runs.
    #[must_use]
    pub fn show(mut self) -> Self {
        self.show = true;
        self
    }

    /// Starts `memu-vmm` with this guest.
    ///
    /// # Errors
    /// Files that cannot be written, or a VMM that cannot be executed.
    pub fn start(self) -> Result<Guest> {
        let config = self.file("toml");
        fs::write(&config, self.configuration()?)?;
        let mut command = Command::new(&self.lab.vmm);
        command.arg("--config").arg(&config);
        self.start_with(command)
    }

    /// Starts another VMM with this guest: `command` is to boot the system's kernel with [`Machine::initrd`], the
    /// serial port on its standard streams and the virtio console on [`Machine::console`].
    ///
    /// # Errors
    /// Files that cannot be written, or a VMM that cannot be executed.
    pub fn start_with(self, mut command: Command) -> Result<Guest> {
        let mut overlay = Cpio::new();
        overlay.directory("test");
        overlay.program("test/run", format!("{PRELUDE}{}\n", self.script).as_bytes());
        for (name, text) in &self.files {
            overlay.program(&format!("test/{name}"), text.as_bytes());
        }
        let mut image = fs::read(&self.system.initrd)
            .with_context(|| format!("initramfs {}", self.system.initrd.display()))?;
        image.resize(image.len().next_multiple_of(4), 0);
        image.extend_from_slice(&overlay.finish());
        fs::write(self.initrd(), image)?;

        // Open for both directions: neither end waits for the other, and a VMM that closes its end, because its guest
        // reboots, is not taken for one that ended. The end is a line of our own.
        make_fifo(&self.console())?;
        let console = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.console())?;
        let mut end_of_console = console.try_clone()?;

        let log = File::create(self.file("log"))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(self.file("err"))?)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let (Some(serial), Some(orders)) = (child.stdout.take(), child.stdin.take()) else {
            bail!("the VMM has no standard streams");
        };
        let (send, lines) = channel();
        let (console_send, console_log) = (send.clone(), log.try_clone()?);
        thread::spawn(move || forward(console, Source::Console, &console_send, console_log));
        thread::spawn(move || {
            forward(serial, Source::Serial, &send, log);
            // On a line of its own: a guest that dies may die within one.
            let _ = write!(end_of_console, "\n{CLOSED}\n");
        });
        Ok(Guest {
            child,
            orders,
            lines,
            socket: self.file("sock"),
            ctl: self.lab.ctl.clone(),
            stderr: self.file("err"),
            since: Instant::now(),
            serial: Vec::new(),
            console: Vec::new(),
            show: self.show,
        })
    }

    /// The initramfs with this guest's script; exists once the guest has started.
    pub fn initrd(&self) -> PathBuf {
        self.file("initrd")
    }

    /// The FIFO that takes the virtio console's output.
    pub fn console(&self) -> PathBuf {
        self.file("out")
    }

    /// The kernel's command line.
    pub fn command_line(&self) -> String {
        let words = format!("console=ttyS0 loglevel=5 panic=-1 {}", self.cmdline);
        words.trim_end().into()
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.lab.work.join(format!("{}.{suffix}", self.name))
    }

    /// The hardware as given, with this guest's kernel, consoles and control socket.
    fn configuration(&self) -> Result<String> {
        let mut config: toml::Table = self
            .config
            .parse()
            .context("the test's hardware description")?;
        let console = format!("file:{}", self.console().display());
        let extra = toml::Table::try_from(serde_json::json!({
            "boot": {
                "kernel": self.system.kernel,
                "initrd": self.initrd(),
                "cmdline": self.command_line(),
            },
            "console": { "serial": "stdio" },
            "control": { "socket": self.file("sock") },
            "virtio_console": [{ "target": console }],
        }))?;
        config.extend(extra);
        Ok(toml::to_string(&config)?)
    }

    /// Starts the guest and waits for its end.
    ///
    /// # Errors
    /// As [`Machine::start`] and [`Guest::wait`].
    pub fn run(self) -> Result<Outcome> {
        self.start()?.wait()
    }
}

/// Written into the virtio console's FIFO when the VMM has ended.
const CLOSED: &str = "@@CLOSED";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Serial,
    Console,
}

fn forward(from: impl Read, source: Source, to: &Sender<(Source, String)>, mut log: File) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        let text = String::from_utf8_lossy(&line)
            .trim_end_matches(['\r', '\n'])
            .to_string();
        line.clear();
        if source == Source::Console && text == CLOSED {
            return;
        }
        let _ = writeln!(
            log,
            "{}{text}",
            if source == Source::Console { "| " } else { "" }
        );
        if to.send((source, text)).is_err() {
            return;
        }
    }
}

fn make_fifo(path: &Path) -> Result<()> {
    let _ = fs::remove_file(path);
    let status = Command::new("mkfifo")
        .arg(path)
        .status()
        .context("mkfifo")?;
    ensure!(status.success(), "mkfifo {} failed", path.display());
    Ok(())
}

/// A guest that runs.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    orders: ChildStdin,
    lines: Receiver<(Source, String)>,
    socket: PathBuf,
    ctl: PathBuf,
    stderr: PathBuf,
    /// Its start, or the last step that it came to.
    since: Instant,
    serial: Vec<String>,
    console: Vec<String>,
    show: bool,
}

impl Guest {
    /// Waits until the guest's script says `@@STEP name`; the guest then waits for [`Guest::go_on`].
    ///
    /// # Errors
    /// The guest ended, or the deadline passed, before that line came.
    pub fn wait_for_step(&mut self, name: &str) -> Result<()> {
        let wanted = format!("@@STEP {name}");
        self.wait_for_line(|line| line == wanted)
            .with_context(|| format!("step {name}"))?;
        self.since = Instant::now();
        Ok(())
    }

    /// Waits for a line of either console that satisfies `wanted`.
    ///
    /// # Errors
    /// The guest ended, or the deadline passed, before that line came.
    pub fn wait_for_line(&mut self, mut wanted: impl FnMut(&str) -> bool) -> Result<()> {
        loop {
            match self.next_line()? {
                Some(line) if wanted(&line) => return Ok(()),
                Some(_) => {}
                None => bail!("the guest ended too early: {}", self.tail()),
            }
        }
    }

    /// Lets the script go on behind its `step`.
    ///
    /// # Errors
    /// The VMM no longer reads its standard input.
    pub fn go_on(&mut self) -> Result<()> {
        self.orders
            .write_all(b"go\n")
            .context("cannot write to the guest's serial port")
    }

    /// What `memu-ctl --json ARGS` answers.
    ///
    /// # Errors
    /// `memu-ctl` failed or did not print JSON.
    pub fn control(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let output = self.memu_ctl(&json)?;
        if output.trim_ascii().is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_slice(&output).with_context(|| format!("memu-ctl {arguments:?}"))
    }

    /// What `memu-ctl ARGS` prints for people.
    ///
    /// # Errors
    /// `memu-ctl` failed.
    pub fn control_text(&self, arguments: &[&str]) -> Result<String> {
        let output = self.memu_ctl(arguments)?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    fn memu_ctl(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = Command::new(&self.ctl)
            .arg("--socket")
            .arg(&self.socket)
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start {}", self.ctl.display()))?;
        ensure!(
            output.status.success(),
            "memu-ctl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    /// What the control socket answers to a `GET`.
    ///
    /// # Errors
    /// Those of [`Guest::exchange`].
    pub fn request(&self, target: &str) -> Result<serde_json::Value> {
        let body = self.exchange("GET", target, "")?;
        serde_json::from_str(&body).with_context(|| target.to_string())
    }

    /// Lets something go wrong: `what` is the injection for the component named `target`.
    ///
    /// # Errors
    /// Those of [`Guest::exchange`].
    pub fn inject(&self, target: &str, what: &serde_json::Value) -> Result<()> {
        let body = serde_json::json!({ "target": target, "what": what }).to_string();
        self.exchange("PUT", "/v1/inject", &body).map(drop)
    }

    /// One request to the control socket, without a program in between: under emulation starting one costs more than what
    /// it is to do.
    ///
    /// # Errors
    /// Nobody listens, or the request was not granted.
    fn exchange(&self, method: &str, target: &str, body: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket).context("the control socket")?;
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .with_context(|| format!("{target}: no answer: {answer}"))?;
        ensure!(head.starts_with("HTTP/1.1 20"), "{target}: {answer}");
        Ok(body.to_string())
    }

    /// The control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The VMM's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9` of the VMM.
    ///
    /// # Errors
    /// The process cannot be signalled or waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the VMM's end.
    ///
    /// # Errors
    /// The deadline passed; the VMM is killed then.
    pub fn wait(mut self) -> Result<Outcome> {
        while self.next_line()?.is_some() {}
        let status = self.child.wait()?;
        Ok(Outcome {
            status,
            sections: sections(&self.console),
            stderr: fs::read_to_string(&self.stderr).unwrap_or_default(),
            serial: std::mem::take(&mut self.serial),
            console: std::mem::take(&mut self.console),
        })
    }

    /// The next line of either console; `None` when both have ended.
    fn next_line(&mut self) -> Result<Option<String>> {
        let deadline = if self.console.is_empty() {
            BOOT_DEADLINE
        } else {
            DEADLINE
        };
        match self
            .lines
            .recv_timeout(deadline.saturating_sub(self.since.elapsed()))
        {
            Ok((source, line)) => {
                match source {
                    Source::Serial => self.serial.push(line.clone()),
                    Source::Console => {
                        if self.show && !line.starts_with("@@") {
                            println!("    {line}");
                        }
                        self.console.push(line.clone());
                    }
                }
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                let machine = self.machine();
                let _ = self.child.kill();
                let _ = self.child.wait();
                bail!(
                    "no end within {} s: {}\n  machine:\n{machine}",
                    deadline.as_secs(),
                    self.tail()
                )
            }
        }
    }

    /// What the machine says of itself, and whether its exits still grow; a VMM that hangs does not hang the test.
    fn machine(&self) -> String {
        ["state", "exits", "exits"]
            .map(|what| {
                let output = Command::new("timeout")
                    .arg("10")
                    .arg(&self.ctl)
                    .arg("--socket")
                    .arg(&self.socket)
                    .args([what, "--json"])
                    .output();
                match output {
                    Ok(output) => [output.stdout, output.stderr]
                        .map(|text| String::from_utf8_lossy(&text).trim_end().to_owned())
                        .concat(),
                    Err(error) => error.to_string(),
                }
            })
            .join("\n")
    }

    fn tail(&self) -> String {
        let last = |lines: &[String]| lines[lines.len().saturating_sub(8)..].join("\n    ");
        format!(
            "serial:\n    {}\n  console:\n    {}\n  stderr:\n    {}",
            last(&self.serial),
            last(&self.console),
            fs::read_to_string(&self.stderr).unwrap_or_default()
        )
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
