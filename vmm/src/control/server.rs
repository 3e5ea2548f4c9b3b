//! The socket and its threads: one that accepts, and one for each client.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Scope};
use std::time::Duration;

use log::{debug, warn};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::http::{NoRequest, Status, read_request};
use super::routes::{Backend, Next, answer, failure};
use crate::error::{HostContext, Result};

/// Most clients at once; a further one is told so and let go.
const MOST_CLIENTS: usize = 16;
/// How long a client may be silent, and how long it may leave an answer unread.
const PATIENCE: Duration = Duration::from_secs(60);

/// A control socket that serves. Dropping it ends all conversations and removes the socket's file.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    stop: Arc<OwnedFd>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Makes the socket `path`, for this user only, and serves `machine` on it. A socket that a dead process left there
    /// is replaced.
    ///
    /// # Errors
    /// [`Error::Host`](crate::Error::Host) if somebody listens there already, if `path` is another kind of file, or if
    /// the host refuses.
    pub fn start(path: &Path, machine: Arc<dyn Backend>) -> Result<Self> {
        let what = || format!("listen on the control socket {}", path.display());
        let listener = listen(path).trying(what)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).trying(what)?);
        let stopped = Arc::clone(&stop);
        let accepting = thread::Builder::new()
            .name("control".to_string())
            .spawn(move || serve(&listener, &stopped, &*machine))
            .trying(what)?;
        Ok(Self {
            path: path.to_path_buf(),
            stop,
            accepting: Some(accepting),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First, so that nobody connects to a server that is about to end.
        if let Err(error) = fs::remove_file(&self.path) {
            warn!("cannot remove {}: {error}", self.path.display());
        }
        if let Err(error) = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()) {
            warn!("cannot stop the control socket: {error}");
            return;
        }
        if self
            .accepting
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            warn!("the control socket's thread had panicked");
        }
    }
}

/// Listens on `path`, over a socket that nobody listens on any more if need be.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is no socket; remove it or choose another path",
                ));
            }
            match UnixStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(other) => return Err(other),
                Ok(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        "a running machine listens there; end it or choose another path",
                    ));
                }
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The clients that are being served, so that their conversations can be ended.
#[derive(Debug, Default)]
struct Clients(Mutex<HashMap<u64, UnixStream>>);

impl Clients {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, UnixStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(listener: &UnixListener, stop: &OwnedFd, machine: &dyn Backend) {
    let clients = Clients::default();
    thread::scope(|scope| {
        for id in 0.. {
            match next_client(listener, stop) {
                Ok(Some(stream)) => welcome(scope, id, stream, &clients, machine),
                Ok(None) => break,
                Err(error) => warn!("control socket: cannot accept: {error}"),
            }
        }
        for stream in clients.lock().values() {
            // A client that has gone by itself needs no goodbye.
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
}

/// Waits for a client; `None` when the server shall stop.
fn next_client(listener: &UnixListener, stop: &OwnedFd) -> io::Result<Option<UnixStream>> {
    let mut events = [
        PollFd::new(stop, PollFlags::IN),
        PollFd::new(listener, PollFlags::IN),
    ];
    loop {
        match poll(&mut events, None) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if events[0].revents().contains(PollFlags::IN) {
        return Ok(None);
    }
    listener.accept().map(|(stream, _)| Some(stream))
}

fn welcome<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    id: u64,
    mut stream: UnixStream,
    clients: &'env Clients,
    machine: &'env dyn Backend,
) {
    let prepared = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| stream.try_clone());
    let Ok(held) = prepared else {
        warn!("control socket: a client could not be served");
        return;
    };
    if clients.lock().len() >= MOST_CLIENTS {
        let busy = failure(
            Status::UNAVAILABLE,
            "there are too many clients",
            "close a connection and try again",
        );
        // It is let go whether it listens or not.
        let _ = busy.write(&mut stream, false);
        return;
    }
    clients.lock().insert(id, held);
    let thread = thread::Builder::new().name(format!("control-{id}"));
    let spawned = thread.spawn_scoped(scope, move || {
        if let Err(error) = converse(&mut stream, machine) {
            debug!("control socket: client {id}: {error}");
        }
        clients.lock().remove(&id);
    });
    if let Err(error) = spawned {
        warn!("control socket: cannot serve a client: {error}");
        clients.lock().remove(&id);
    }
}

/// Answers a client until it has no more to ask.
fn converse(stream: &mut UnixStream, machine: &dyn Backend) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    loop {
        let request = match read_request(&mut requests, stream) {
            Ok(request) => request,
            Err(NoRequest::Closed) => return Ok(()),
            Err(NoRequest::Refused(status, why)) => {
                return failure(status, why, "send a plain HTTP/1.1 request").write(stream, false);
            }
        };
        let (response, next) = answer(machine, &request);
        let keep_alive = request.keep_alive && next == Next::Serve;
        let sent = response.write(stream, keep_alive);
        if next == Next::Quit {
            machine.quit();
        }
        sent?;
        if !keep_alive {
            return Ok(());
        }
    }
}
