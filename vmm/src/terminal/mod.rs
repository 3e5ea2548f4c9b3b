//! Where a console's bytes go to and come from: the terminal, a file, a socket, a pseudo-terminal.
//!
//! Output never blocks whoever writes it: it waits in an [`Outbox`] for a thread of its own.
//! Input is read by another thread and handed to whatever device is attached.

mod escape;
mod outbox;
mod raw;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use self::escape::Escape;
use self::outbox::Outbox;
use self::raw::RawMode;
use crate::error::{HostContext, Result};

pub use self::raw::restore;

/// A console's other end, as the configuration names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The terminal that the program runs in, raw: Ctrl-A x quits, Ctrl-A Ctrl-A is a Ctrl-A.
    #[default]
    Stdio,
    /// A file, emptied first. There is no input.
    File(PathBuf),
    /// A Unix socket that listens here, for one client at a time.
    Socket(PathBuf),
    /// A new pseudo-terminal.
    Pty,
    /// Nothing.
    Null,
}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownTarget> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("socket", path)) if !path.is_empty() => Ok(Self::Socket(path.into())),
            _ => match text {
                "stdio" => Ok(Self::Stdio),
                "pty" => Ok(Self::Pty),
                "null" => Ok(Self::Null),
                _ => Err(UnknownTarget(text.into())),
            },
        }
    }
}

impl fmt::Display for Target {
    /// As it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Socket(path) => write!(f, "socket:{}", path.display()),
            Self::Pty => f.write_str("pty"),
            Self::Null => f.write_str("null"),
        }
    }
}

/// A text that names no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a console target: write stdio, file:PATH, socket:PATH, pty or null")]
pub struct UnknownTarget(String);

/// Takes input bytes. Must not block for long.
type Receiver = Box<dyn FnMut(&[u8]) + Send>;

/// An open [`Target`]. It outlives the machine, so that a reboot keeps the console.
pub struct Terminal {
    outbox: Arc<Outbox>,
    receiver: Arc<Mutex<Option<Receiver>>>,
    /// Tells the input thread to end.
    stop: Arc<OwnedFd>,
    path: Option<PathBuf>,
    raw: Option<RawMode>,
    /// Our own end of the pseudo-terminal's slave, without which it hangs up.
    _slave: Option<File>,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Where input comes from.
enum Source {
    /// One stream, with or without the escape keys.
    Stream { file: File, escape: Option<Escape> },
    /// Clients, one after the other.
    Clients(UnixListener),
}

impl Terminal {
    /// Opens `target`. `quit` is called, in a thread of the terminal, when the user types the escape
    /// to quit.
    ///
    /// # Errors
    /// [`Error::Host`](crate::Error::Host) with the path that could not be opened.
    pub fn open(target: &Target, quit: impl Fn() + Send + 'static) -> Result<Self> {
        let mut terminal = Self {
            outbox: Arc::new(Outbox::default()),
            receiver: Arc::default(),
            stop: Arc::new(eventfd(0, EventfdFlags::CLOEXEC).trying(|| "make an event".into())?),
            path: None,
            raw: None,
            _slave: None,
        };
        let source = match target {
            Target::Stdio => Some(terminal.open_stdio()?),
            Target::File(path) => {
                let file = File::create(path).trying(|| format!("create {}", path.display()))?;
                terminal.outbox.connect(file);
                None
            }
            Target::Socket(path) => Some(terminal.open_socket(path)?),
            Target::Pty => Some(terminal.open_pty()?),
            Target::Null => {
                terminal.outbox.close();
                None
            }
        };
        if *target != Target::Null {
            let outbox = Arc::clone(&terminal.outbox);
            spawn("console-out", move || outbox.run())?;
        }
        if let Some(source) = source {
            let input = Input {
                outbox: Arc::clone(&terminal.outbox),
                receiver: Arc::clone(&terminal.receiver),
                stop: Arc::clone(&terminal.stop),
                quit: Box::new(quit),
            };
            spawn("console-in", move || input.run(source))?;
        }
        Ok(terminal)
    }

    /// Where to find it: the socket, or the pseudo-terminal's slave.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The way out. Writing never blocks and never fails; a reader too slow for it loses the oldest
    /// bytes.
    #[must_use]
    pub fn writer(&self) -> TerminalWriter {
        TerminalWriter(Arc::clone(&self.outbox))
    }

    /// Hands input to `receiver` from now on, instead of whatever had it before. Bytes that come
    /// while there is no receiver are dropped.
    pub fn attach(&self, receiver: impl FnMut(&[u8]) + Send + 'static) {
        *self.receiver.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(receiver));
    }

    fn open_stdio(&mut self) -> Result<Source> {
        let duplicate = |fd: io::Result<OwnedFd>| fd.trying(|| "duplicate the terminal".into());
        let input = duplicate(io::stdin().as_fd().try_clone_to_owned())?;
        let output = duplicate(io::stdout().as_fd().try_clone_to_owned())?;
        if input.is_terminal() {
            self.raw = Some(RawMode::enter(&input)?);
        }
        self.outbox.connect(File::from(output));
        Ok(Source::Stream {
            file: File::from(input),
            escape: Some(Escape::default()),
        })
    }

    fn open_socket(&mut self, path: &Path) -> Result<Source> {
        let what = || format!("listen on {}", path.display());
        // A socket that nobody listens on is left over from a run that was killed.
        if std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            std::fs::remove_file(path).trying(what)?;
        }
        let listener = UnixListener::bind(path).trying(what)?;
        self.path = Some(path.to_owned());
        Ok(Source::Clients(listener))
    }

    fn open_pty(&mut self) -> Result<Source> {
        let what = || "make a pseudo-terminal".into();
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).trying(what)?;
        grantpt(&master).trying(what)?;
        unlockpt(&master).trying(what)?;
        let name = ptsname(&master, Vec::new()).trying(what)?;
        let path = PathBuf::from(name.to_string_lossy().into_owned());
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .trying(what)?;
        raw::make_raw(&slave)?;
        let output = master.try_clone().trying(what)?;
        self.outbox.connect(File::from(output));
        self.path = Some(path);
        self._slave = Some(slave);
        Ok(Source::Stream {
            file: File::from(master),
            escape: None,
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The threads end by themselves; one that hangs in a write must not hang the program.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        self.outbox.drain();
        self.outbox.close();
    }
}

/// The way out of a [`Terminal`].
#[derive(Clone, Debug)]
pub struct TerminalWriter(Arc<Outbox>);

impl Write for TerminalWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the input thread holds.
struct Input {
    outbox: Arc<Outbox>,
    receiver: Arc<Mutex<Option<Receiver>>>,
    stop: Arc<OwnedFd>,
    quit: Box<dyn Fn() + Send>,
}

impl Input {
    fn run(&self, source: Source) {
        match source {
            Source::Stream { file, escape } => self.read(&file, escape),
            Source::Clients(listener) => {
                while self.wait_for(&listener) {
                    let Ok((client, _)) = listener.accept() else {
                        continue;
                    };
                    let Ok(output) = client.try_clone() else {
                        continue;
                    };
                    self.outbox.connect(File::from(OwnedFd::from(output)));
                    self.read(&File::from(OwnedFd::from(client)), None);
                    self.outbox.disconnect();
                }
            }
        }
    }

    /// Hands over what comes, until the end of the stream or of the terminal.
    fn read(&self, mut file: &File, mut escape: Option<Escape>) {
        let mut buffer = [0; 4096];
        while self.wait_for(file) {
            let bytes = match file.read(&mut buffer) {
                Ok(count) if count > 0 => &buffer[..count],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                _ => return,
            };
            match &mut escape {
                None => self.hand_over(bytes),
                Some(escape) => {
                    let mut kept = Vec::with_capacity(bytes.len() + 1);
                    let quit = escape.filter(bytes, &mut kept);
                    self.hand_over(&kept);
                    if quit {
                        (self.quit)();
                    }
                }
            }
        }
    }

    fn hand_over(&self, bytes: &[u8]) {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receiver) = receiver.as_mut() {
            receiver(bytes);
        }
    }

    /// Waits for something to read; false when the terminal is closed.
    fn wait_for(&self, source: &impl AsFd) -> bool {
        loop {
            let mut fds = [
                PollFd::new(source, PollFlags::IN),
                PollFd::new(&*self.stop, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) => return fds[1].revents().is_empty(),
            }
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map(drop)
        .trying(|| format!("start the thread {name}"))
}

#[cfg(test)]
mod tests;
