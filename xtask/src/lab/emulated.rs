//! The machine that QEMU emulates: Debian's kernel over the host's root file system, and in it the command of a session.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use super::child::{EXIT_SILENT, EXIT_TIMEOUT, forward, to_stderr, wait};
use super::{Session, host_cpus};
use crate::kernel::{self, Freshness, Kernel, Track};
use crate::root::content_key;
use crate::{cmd, cpio, guest, image, paths, qemu, setup, ui};

/// Of a dead machine's console; a kernel says why it panics some fifty lines before its end.
const CONSOLE_LINES: usize = 100;
/// Memory of the emulated machine where the host has enough.
const DEFAULT_MEMORY_MIB: u64 = 8192;

/// Counts the sessions of this process.
static SESSIONS: AtomicUsize = AtomicUsize::new(0);

/// Modules of the emulated machine, with what they depend on.
const MODULES: [&str; 8] = [
    "virtio_pci",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "overlay",
    "kvm-amd",
    "tun",
    "virtio_rng",
];
const INIT: &str = include_str!("../../../images/lab/init");

/// The emulated machine ended, or fell silent, before the command did: its fault, not the command's.
#[derive(Debug)]
pub struct Died {
    how: String,
    /// The end of its console.
    console: String,
}

impl fmt::Display for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Died { how, console } = self;
        write!(
            f,
            "the lab {how} before the command ended; its console:\n{console}"
        )
    }
}

impl std::error::Error for Died {}

/// Takes output as it comes.
type Sink<'a> = Box<dyn FnMut(&[u8]) + Send + 'a>;

/// Where the output of an emulated session goes.
pub enum Streams<'a> {
    /// Stdout to a function, stderr to this process's stderr.
    Captured(Sink<'a>),
    /// Both, and stdin, are this process's terminal.
    Terminal,
}

/// An emulated machine, ready to start.
pub struct Emulated<'a> {
    session: &'a Session,
    kernel: Kernel,
    qemu: Vec<PathBuf>,
    /// Files of this session, removed when it is over.
    dir: PathBuf,
    out: PathBuf,
}

impl<'a> Emulated<'a> {
    pub fn prepare(session: &'a Session) -> Result<Emulated<'a>> {
        setup::ensure(setup::FOR_LAB)?;
        let kernel = kernel::obtain(Track::Stable, Freshness::Recent)?;
        let qemu = qemu::obtain()?;
        let out = fs::canonicalize(&session.out)?;
        let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let dir = out.join(format!(".session-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Emulated {
            session,
            kernel,
            qemu,
            dir,
            out,
        })
    }

    pub fn run(self, streams: Streams) -> Result<i32> {
        let result = self.boot(streams);
        let _ = fs::remove_dir_all(&self.dir);
        result
    }

    fn boot(&self, streams: Streams) -> Result<i32> {
        let terminal = matches!(streams, Streams::Terminal);
        let initrd = self.dir.join("initramfs");
        let mut archive = fs::read(initramfs(&self.kernel)?)?;
        archive.extend(self.job(terminal)?);
        fs::write(&initrd, archive)?;

        let started = Instant::now();
        let mut qemu = self.machine(&initrd, terminal)?;
        let status = match streams {
            Streams::Terminal => {
                let child = qemu.spawn().context("cannot run QEMU")?;
                wait(child, self.session.timeout, || false)?
            }
            Streams::Captured(mut sink) => {
                let mut child = qemu
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .context("cannot run QEMU")?;
                let stdout = child.stdout.take().context("the pipe is gone")?;
                let stderr = child.stderr.take().context("the pipe is gone")?;
                let last = Mutex::new(Instant::now());
                let silent = || {
                    let last = last.lock().unwrap_or_else(PoisonError::into_inner);
                    self.session
                        .silence
                        .is_some_and(|most| last.elapsed() > most)
                };
                thread::scope(|scope| {
                    scope.spawn(|| {
                        forward(stdout, &mut |bytes| {
                            *last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                            sink(bytes);
                        });
                    });
                    scope.spawn(move || forward(stderr, &mut to_stderr));
                    wait(child, self.session.timeout, silent)
                })?
            }
        };
        if status == EXIT_TIMEOUT {
            ui::note(&format!(
                "the lab was stopped after {} s",
                started.elapsed().as_secs()
            ));
            return Ok(EXIT_TIMEOUT);
        }
        self.exit_status(status)
    }

    /// The status that the command left, once QEMU has ended with `qemu_status`.
    fn exit_status(&self, qemu_status: i32) -> Result<i32> {
        let left = fs::read_to_string(self.dir.join("status")).ok();
        if let Some(status) = left.and_then(|text| text.trim().parse().ok()) {
            return Ok(status);
        }
        let how = match qemu_status {
            EXIT_SILENT => "fell silent".to_owned(),
            status => format!("ended, QEMU with status {status},"),
        };
        let console = fs::read(self.dir.join("console.log")).unwrap_or_default();
        let console = cmd::last_lines(&String::from_utf8_lossy(&console), CONSOLE_LINES);
        Err(Died { how, console }.into())
    }

    /// The archive that tells init what to do.
    fn job(&self, terminal: bool) -> Result<Vec<u8>> {
        let tree = self.dir.join("job-tree");
        let job = tree.join("job");
        fs::create_dir_all(&job)?;
        let mut script = self.session.script()?;
        if terminal && let Some((rows, columns)) = terminal_size() {
            script = script.replacen('\n', &format!("\nstty rows {rows} cols {columns}\n"), 1);
        }
        fs::write(job.join("run"), script)?;
        fs::write(job.join("share"), self.out.to_string_lossy().as_bytes())?;
        fs::write(job.join("session"), self.dir.to_string_lossy().as_bytes())?;
        if terminal {
            fs::write(job.join("terminal"), "")?;
        }
        cpio::archive(&tree)
    }

    fn machine(&self, initrd: &Path, terminal: bool) -> Result<Command> {
        let memory = self.session.memory_mib.unwrap_or_else(default_memory_mib);
        let cpus = self.session.cpus.unwrap_or(1);
        // The machine ends with this process, even if that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        // By its source, QEMU delivers an interrupt that VMRUN injects and leaves its vector in `exception_index`. If the thread
        // is then asked to leave its loop before the guest's next exit, as another CPU does that has to be alone for a
        // moment, it takes the vector for an exception and delivers it again, in the middle of whatever the guest does with
        // interrupts off. Stop and continue, given to the monitor 20 to 50 times a second, ask the same of the thread, and
        // hung two of four guests. So there is no other CPU, and nothing of QEMU runs beside its thread.
        let threads = if cpus == 1 {
            let all = host_cpus();
            let any = all[std::process::id() as usize % all.len()];
            let home = self.session.home.unwrap_or(any);
            command.args(["taskset", "--cpu-list", &home.to_string()]);
            "tcg,thread=single"
        } else {
            "tcg,thread=multi"
        };
        command.args(&self.qemu);
        command.args([
            "-accel",
            threads,
            "-machine",
            "q35",
            // Four levels of page tables: a walk through those of a guest and those below takes 24 loads instead of 35.
            "-cpu",
            "max,la57=off",
        ]);
        command.args(["-smp", &cpus.to_string(), "-m", &memory.to_string()]);
        command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        // The ELF image: unpacking a bzImage is slow here.
        command
            .arg("-kernel")
            .arg(self.kernel.vmlinux())
            .arg("-initrd")
            .arg(initrd);
        // The check of the timer gives up, and the kernel with it, when a busy machine delays ten ticks.
        command.args([
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests no_timer_check",
        ]);
        command.args(["-serial", &option("file:", &self.dir.join("console.log"))]);
        command.args([
            "-fsdev",
            "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
        ]);
        command.args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]);
        let share = format!(
            "{},security_model=none,multidevs=remap",
            option("local,id=share,path=", &self.out)
        );
        command.args([
            "-fsdev",
            &share,
            "-device",
            "virtio-9p-pci,fsdev=share,mount_tag=share",
        ]);
        command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
        if terminal {
            command.args([
                "-chardev",
                "stdio,id=terminal,signal=off",
                "-device",
                "virtconsole,chardev=terminal",
            ]);
        } else {
            // Not `stdio`: its end of input would disconnect the port's output too.
            for (number, name) in [("1", "stdout"), ("2", "stderr")] {
                command.args([
                    "-chardev",
                    &format!("file,id={name},path=/proc/self/fd/{number}"),
                ]);
                command.args([
                    "-device",
                    &format!("virtserialport,nr={number},chardev={name}"),
                ]);
            }
        }
        Ok(command)
    }
}

/// A QEMU option that ends with a path; commas in it are doubled.
fn option(head: &str, path: &Path) -> String {
    format!("{head}{}", path.to_string_lossy().replace(',', ",,"))
}

/// The machine's initramfs without its job.
fn initramfs(kernel: &Kernel) -> Result<PathBuf> {
    let program = guest::build()?;
    let busybox = Path::new("/bin/busybox");
    let images = paths::cache()?.join("images");
    fs::create_dir_all(&images)?;
    let _lock = paths::lock("images")?;
    let key = content_key(&(
        &kernel.release,
        kernel.dir.file_name(),
        MODULES,
        INIT,
        fs::read(&program)?,
        fs::read(busybox)?,
    ));
    let path = images.join(format!("lab-{key}.initramfs"));
    paths::prune(&images, "lab-")?;
    if path.exists() {
        return Ok(path);
    }
    ui::step("making the lab's initramfs", || {
        let tree = paths::scratch(&images, &key)?;
        for dir in [
            "bin", "modules", "proc", "sys", "dev", "host", "overlay", "root",
        ] {
            fs::create_dir_all(tree.join(dir))?;
        }
        image::install("busybox", busybox, &tree.join("bin/busybox"))?;
        image::install("memu-guest", &program, &tree.join("bin/memu-guest"))?;
        image::link_applets(busybox, &tree.join("bin"))?;
        image::write_init(&tree, INIT)?;
        let mut list = String::new();
        for module in kernel.insertion_order_of(&MODULES)? {
            let name = module.file_name().context("a module has a name")?;
            let inside = Path::new("modules").join(name).with_extension("");
            fs::write(tree.join(&inside), kernel::decompressed(&module)?)?;
            list.push_str(&format!("/{}\n", inside.display()));
        }
        fs::write(tree.join("modules/insert"), list)?;
        let fresh = path.with_extension("partial");
        fs::write(&fresh, cpio::archive(&tree)?)?;
        fs::rename(&fresh, &path)?;
        fs::remove_dir_all(&tree)?;
        Ok(path.clone())
    })
}

/// A memory that leaves the host a quarter of what it has free.
fn default_memory_mib() -> u64 {
    DEFAULT_MEMORY_MIB.min(spare_memory_mib()).max(2048)
}

/// Three quarters of the memory that the host has free.
pub fn spare_memory_mib() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = available
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    kib / 1024 * 3 / 4
}

/// Rows and columns of the terminal on stdin.
fn terminal_size() -> Option<(u16, u16)> {
    let output = Command::new("stty")
        .arg("size")
        .stdin(Stdio::inherit())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (rows, columns) = text.trim().split_once(' ')?;
    Some((rows.parse().ok()?, columns.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_a_path_do_not_end_a_qemu_option() {
        assert_eq!(option("file:", Path::new("/a,b")), "file:/a,,b");
    }
}
